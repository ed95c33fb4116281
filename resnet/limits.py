"""What the owner of this program allows, here and nowhere else."""

WORK_BYTES = 4_000_000_000  # of memory that work inside the app may take at its peak
MAX_BATCH = 65_536  # images of a step whose costs are asked for
PHOTO_MB, WEIGHTS_MB = 50, 1024  # of an upload; maxUploadSize in .streamlit/config.toml is the larger one
