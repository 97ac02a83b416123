"""Objectives of representation learning: functions of the moments of one or two views."""
