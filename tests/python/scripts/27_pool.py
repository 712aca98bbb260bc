"""Someone with many captures gives each to a worker of a pool."""

import shutil
import sys
from multiprocessing import Pool

from nfstream import NFStreamer


def features(path):
    df = NFStreamer(source=path, statistical_analysis=True, n_dissections=0, n_meters=1).to_pandas()
    return path, len(df), df[["bidirectional_bytes", "dst2src_stddev_ps"]].sum().tolist()


if __name__ == "__main__":
    paths = [shutil.copy(sys.argv[1], f"capture{number}.pcap") for number in range(4)]
    with Pool(processes=2) as pool:
        for result in pool.map(features, paths):
            print(*result)
    import os

    for path in paths:
        os.remove(path)
