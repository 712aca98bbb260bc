"""Do flows have what a model gives, however they are taken?

The argument is a capture. A model is trained on its flows, and run by flowmeter.
"""

import os
import pathlib
import sys
import tempfile

import numpy as np
import pandas
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.tree import DecisionTreeClassifier

import flowmeter

FEATURES = ["bidirectional_packets", "src_port", "bidirectional_bytes"]


class Counter(flowmeter.NFPlugin):
    def on_init(self, packet, flow):
        flow.udps.packets = 1

    def on_update(self, packet, flow):
        flow.udps.packets += 1


def trained(capture, folder):
    """A model file, and what its library says of the capture's flows."""
    flows = flowmeter.NFStreamer(source=capture, n_dissections=0).to_pandas()
    table = flows[FEATURES].to_numpy("float32")
    tree = DecisionTreeClassifier(random_state=1).fit(table, np.where(flows.src_port % 2, "odd", "even"))
    inputs = [("features", FloatTensorType([None, len(FEATURES)]))]
    file = os.path.join(folder, "tree.onnx")
    with open(file, "wb") as out:
        out.write(to_onnx(tree, initial_types=inputs, target_opset={"": 15, "ai.onnx.ml": 3}).SerializeToString())
    return file, list(tree.predict(table))


def refused(capture, model, word):
    try:
        list(flowmeter.NFStreamer(source=capture, model=model))
    except ValueError as error:
        assert word in str(error), error
    else:
        raise AssertionError(f"{model} was taken")


def main():
    capture = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        # Whatever the runtime keeps of its users would be below it.
        os.environ["HOME"] = os.path.join(folder, "home")
        os.mkdir(os.environ["HOME"])
        file, labels = trained(capture, folder)
        assert set(labels) == {"odd", "even"}, labels
        options = {"source": capture, "n_dissections": 0, "model": {file: FEATURES}}
        streamer = flowmeter.NFStreamer(**options)
        flows = list(streamer)
        assert [flow.udps.tree_label for flow in flows] == labels
        assert all(abs(flow.udps.tree_score_odd + flow.udps.tree_score_even - 1) < 1e-6 for flow in flows)
        assert flows[0].keys()[-3:] == ["udps.tree_label", "udps.tree_score_even", "udps.tree_score_odd"]
        streamer.model = streamer.model
        frame = streamer.to_pandas()
        assert list(frame["udps.tree_label"]) == labels
        assert frame.equals(pandas.read_csv(written(streamer, folder)))
        typed = streamer.to_pandas(typed=True, columns=["id", "udps.tree_label"])
        assert list(typed["udps.tree_label"]) == labels and list(typed.columns) == ["id", "udps.tree_label"]
        assert streamer.to_arrow().column("udps.tree_label") == labels
        with_plugin = list(flowmeter.NFStreamer(udps=Counter(), **options))
        assert [flow.udps.tree_label for flow in with_plugin] == labels
        assert all(flow.udps.packets == flow.bidirectional_packets for flow in with_plugin)
        table = flowmeter.NFStreamer(udps=Counter(), **options).to_arrow()
        assert table.column("udps.tree_label") == labels
        refused(capture, {file: ["no_such"]}, "no column is named `no_such`")
        refused(capture, file, "is not named after a column")
        refused(capture, __file__, "cannot use the model")
        refused(capture, "/nonexistent.onnx", "existing ONNX files")
        left = [path for path in pathlib.Path(os.environ["HOME"]).rglob("*")]
        assert not left, left
    print(f"{len(labels)} flows")


def written(streamer, folder):
    path = os.path.join(folder, "flows.csv")
    streamer.to_csv(path)
    return path


if __name__ == "__main__":
    main()
