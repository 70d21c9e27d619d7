"""Pictures of the page that are small enough for a repository."""

import io

from PIL import Image

MOST_BYTES = 150_000


def small_png(png):
    """The picture with as many colours as MOST_BYTES leave room for."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colours in (256, 128, 64, 32):
        file = io.BytesIO()
        image.quantize(colours).save(file, "PNG", optimize=True)
        if file.tell() <= MOST_BYTES:
            return file.getvalue()
    raise ValueError(f"the picture has {file.tell()} bytes in 32 colours: take a smaller part of the page")
