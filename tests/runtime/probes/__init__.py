"""What programs and libraries do with files, as cases whose answers must be the same for plain and sealed ones."""
