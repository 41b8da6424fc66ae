"""Settings of the audit log and of masking. They start nothing."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ConsentSettings(BaseModel):
    """A part of the gateway's settings."""

    audit_texts: bool = Field(False, description="Write arguments of tools into the audit log, not only their digest.")
    audit_max_bytes: int = Field(16 << 20, ge=4096, description="Size at which the audit log begins a new file.")
    mask_pii: bool = Field(
        False, description="Mask personal data before tools send it to a teacher and before an example is stored."
    )
