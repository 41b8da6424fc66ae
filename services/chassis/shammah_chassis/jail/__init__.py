"""The inside of the sandbox: cuts its own process off, then runs one program. Standard library only.

It is started by `shammah_chassis.grading.sandbox` under `python -I -S`, so nothing here may import another
package. It does not know graders or examples.
"""
