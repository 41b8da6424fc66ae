"""Teachers: who answers when the student may not. One interface, several kinds."""
