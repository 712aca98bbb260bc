"""Models as users make them, and what their libraries say of flows.

    models.py train FLOWMETER FOLDER    writes flows.pcap, meters it, trains and exports models of it
    models.py check FOLDER NAME ROWS    compares a model's columns in rows of flowmeter's (JSON lines)
"""

import csv
import json
import pathlib
import pickle
import random
import subprocess
import sys

import dpkt
import numpy as np
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as XgboostFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

#: What flows are told apart by.
FEATURES = [
    "bidirectional_packets",
    "bidirectional_duration_ms",
    "src2dst_bytes",
    "dst2src_bytes",
    "bidirectional_mean_ps",
    "bidirectional_stddev_piat_ms",
    "src2dst_max_ps",
    "splt_ps",
]
#: Packets in the lists.
SPLT = 4
#: Columns of a model that takes each by its name.
NAMED = ["dst_ip", "protocol", "bidirectional_bytes"]
OPTIONS = ["--statistical-analysis", f"--splt-analysis={SPLT}", "--n-dissections=0"]
KINDS = ("chat", "bulk", "beacon")
FLOWS = 600


def write_capture(path):
    """Flows of three kinds; a flow's kind is the thousand of its source port."""
    choose = random.Random(13)
    packets = []
    for number in range(FLOWS):
        kind = number % len(KINDS)
        count = (choose.randint(4, 12), choose.randint(20, 60), choose.randint(2, 5))[kind]
        gap = (0.05, 0.001, 0.2)[kind]
        time = 1000 + number * 0.002
        for place in range(count):
            size = (choose.randint(10, 300), choose.choice((0, 1400)), 40 + choose.randint(0, 9))[kind]
            back = place % 2 if kind != 1 else int(place > 0 and size == 0)
            packets.append((time, number, kind, back, size))
            time += choose.uniform(0.5, 1.5) * gap
    with open(path, "wb") as file:
        writer = dpkt.pcap.Writer(file)
        for time, number, kind, back, size in sorted(packets):
            ports = [20000 + 1000 * kind + number // len(KINDS), 443]
            ends = [bytes([10, 0, 0, 1]), bytes([10, 0, 1, 1 + kind])]
            udp = dpkt.udp.UDP(sport=ports[back], dport=ports[1 - back], data=bytes(size))
            udp.ulen = 8 + size
            ip = dpkt.ip.IP(src=ends[back], dst=ends[1 - back], p=17, ttl=64, data=udp)
            ip.len = 28 + size
            ether = dpkt.ethernet.Ethernet(src=b"\2\0\0\0\0\1", dst=b"\2\0\0\0\0\2", data=ip)
            writer.writepkt(bytes(ether), time)


def numbers(row, names):
    """The values of columns, lists one after another."""
    values = []
    for name in names:
        value = row[name]
        value = json.loads(value) if isinstance(value, str) else value
        values += value if isinstance(value, list) else [value]
    return values


def frames(rows):
    """What the models are trained on, and asked."""
    table = np.array([numbers(row, FEATURES) for row in rows], dtype=np.float32)
    named = np.array([[row["dst_ip"], int(row["protocol"]), float(row["bidirectional_bytes"])] for row in rows], dtype=object)
    return table, named


def exported(model, inputs, **options):
    return to_onnx(model, initial_types=inputs, options={id(model): options} if options else None, target_opset={"": 15, "ai.onnx.ml": 3})


def models(table, named, kinds):
    """Names, models and files: as their libraries' users write them."""
    width = table.shape[1]
    one = [("features", FloatTensorType([None, width]))]
    kind = np.array([KINDS[number] for number in kinds])
    forest = RandomForestClassifier(30, max_depth=6, random_state=1).fit(table, kind)
    yield "forest", forest, exported(forest, one)
    yield "plain", forest, exported(forest, one, zipmap=False)
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(table, kind)
    yield "logistic", line, exported(line, one)
    boosted = GradientBoostingClassifier(n_estimators=20, random_state=1).fit(table, kinds)
    yield "boosted", boosted, exported(boosted, one)
    network = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=300, random_state=1))
    network.fit(table, kind)
    yield "network", network, exported(network, one)
    xgboost = XGBClassifier(n_estimators=20, max_depth=4).fit(table, kinds)
    yield "xgboost", xgboost, convert_xgboost(xgboost, initial_types=[("features", XgboostFloat([None, width]))], target_opset=15)
    regression = LinearRegression().fit(table[:, :2], table[:, 2])
    yield "regression", regression, exported(regression, [("features", FloatTensorType([None, 2]))])
    # It has not learned the empty text, and refuses what it has not learned.
    strict = make_pipeline(OneHotEncoder(), LogisticRegression())
    strict.fit(named[kinds < 2][:, :1], kind[kinds < 2])
    yield "strict", strict, exported(strict, [("dst_ip", StringTensorType([None, 1]))], zipmap=False)
    pick = ColumnTransformer(
        [("texts", OneHotEncoder(handle_unknown="ignore"), [0, 1]), ("numbers", StandardScaler(), [2])]
    )
    mixed = make_pipeline(pick, RandomForestClassifier(10, random_state=1)).fit(named, kind)
    yield "mixed", mixed, exported(
        mixed,
        [
            ("dst_ip", StringTensorType([None, 1])),
            ("protocol", Int64TensorType([None, 1])),
            ("bidirectional_bytes", FloatTensorType([None, 1])),
        ],
    )


def train(flowmeter, folder):
    folder = pathlib.Path(folder)
    capture, metered = folder / "flows.pcap", folder / "flows.csv"
    write_capture(capture)
    subprocess.run([flowmeter, "read", capture, *OPTIONS, "-o", metered], check=True)
    with open(metered, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FLOWS, len(rows)
    kinds = np.array([int(row["src_port"]) // 1000 - 20 for row in rows])
    table, named = frames(rows)
    for name, model, file in models(table, named, kinds):
        (folder / f"{name}.onnx").write_bytes(file.SerializeToString())
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(model))


def check(folder, name, path):
    model = pickle.loads((pathlib.Path(folder) / f"{name}.pickle").read_bytes())
    with open(path, encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if "src_ip" in row]
    table, named = frames(rows)
    given = {column: [row[column] for row in rows] for column in rows[0] if column.startswith("udps.")}
    if name == "regression":
        values = model.predict(table[:, :2])
        assert list(given) == ["udps.regression_value"], list(given)
        assert np.allclose(given["udps.regression_value"], values, rtol=1e-4, atol=1e-1)
        print(f"{name}: {len(rows)} flows")
        return
    table = named if name == "mixed" else table
    labels, scores = model.predict(table), model.predict_proba(table)
    classes = range(scores.shape[1]) if name == "plain" else model.classes_
    columns = [f"udps.{name}_label", *(f"udps.{name}_score_{of}" for of in classes)]
    assert list(given) == columns, list(given)
    # Where two classes are as likely, single precision decides.
    best = np.sort(scores, axis=1)
    are_clear = best[:, -1] - best[:, -2] > 1e-4
    assert are_clear.mean() > 0.9, are_clear.mean()
    wrong = [i for i in np.flatnonzero(are_clear) if given[columns[0]][i] != labels[i]]
    assert not wrong, f"{name}: {len(wrong)} labels differ: {rows[wrong[0]]}"
    for place, column in enumerate(columns[1:]):
        furthest = np.abs(np.array(given[column], dtype=float) - scores[:, place]).max()
        assert furthest < 1e-5, f"{name}: {column} is off by {furthest}"
    seen = {label: given[columns[0]].count(label) for label in set(given[columns[0]])}
    assert len(seen) == len(KINDS), seen
    print(f"{name}: {len(rows)} flows, {seen}")


if __name__ == "__main__":
    {"train": train, "check": check}[sys.argv[1]](*sys.argv[2:])
