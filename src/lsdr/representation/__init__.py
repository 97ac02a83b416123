"""Codes that keep what stays the same between views: of images, texts and tables."""
