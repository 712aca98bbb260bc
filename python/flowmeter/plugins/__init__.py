"""Plugins that come with flowmeter, with NFStream's names and values."""

from .slicer import FlowSlicer
from .splt import SPLT
