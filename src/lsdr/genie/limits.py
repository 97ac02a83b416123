"""How much the Genie reads: beyond these a document is refused, in a sentence, before it costs anything."""

# Bytes of a file, and characters of its text.
MAX_BYTES = 200 * 1024**2
PDF_PAGES = 10_000
# Their trees take twenty-five and a hundred times their bytes.
HTML_BYTES = 32 * 1024**2
PYTHON_BYTES = 4 * 1024**2
# What a .docx may unpack to, how many times its packed size, in how many files, and how much of it as one XML file
# (a parsed tree takes some ten times its bytes).
DOCX_UNPACKED_BYTES = 200 * 1024**2
DOCX_RATIO = 200
DOCX_FILES = 10_000
DOCX_XML_BYTES = 64 * 1024**2
# The picture of a page, in pixels a side.
PICTURE_SIDE = 4000
