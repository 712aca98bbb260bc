"""Plugins that come with flowmeter, with NFStream's names and values."""

from .dhcp import DHCP
from .ja4 import JA4
from .mdns import MDNS
from .slicer import FlowSlicer
from .splt import SPLT
