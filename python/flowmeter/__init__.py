"""flowmeter: flows of captures and interfaces, with NFStream's API and numbers.

``import flowmeter as nfstream`` or ``from flowmeter import NFStreamer, NFPlugin`` is all that a script
written for NFStream 6.6.0 needs.
"""

from . import flow as flow
from . import plugin as plugin
from . import plugins as plugins
from . import streamer as streamer
from ._engine import Table as Table
from .plugin import NFPlugin as NFPlugin
from .streamer import NFStreamer as NFStreamer

__version__ = "0.1.0"
__author__ = "The flowmeter authors"
__email__ = ""

#: The version of NFStream whose API and numbers these are.
NFSTREAM_COMPAT = "6.6.0"
