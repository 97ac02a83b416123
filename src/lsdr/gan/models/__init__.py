"""The players' networks: presets by name, built for points or images of any shape that they can take."""
