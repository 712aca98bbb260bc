#!/bin/busybox sh
# The first process of a virtual machine: makes a machine of the host's files, under a layer that is
# thrown away, and goes on with the job there.
/bin/busybox mkdir -p /proc /sys /dev /host /scratch /new
for applet in mount mkdir cat cp insmod ip switch_root poweroff ln sleep; do
    /bin/busybox ln -s busybox /bin/$applet
done
mount -t proc proc /proc
mount -t devtmpfs dev /dev
fail() {
    echo "init: $1"
    sleep 1
    poweroff -f
}
while read -r module; do
    insmod "/modules/$module.ko" || echo "init: no module $module"
done </modules/order
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose host /host ||
    fail "no files of the host"
mount -t tmpfs scratch /scratch
mkdir /scratch/upper /scratch/work
mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /new ||
    fail "no layer over the host's files"
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t bpf bpf /new/sys/fs/bpf
mount -t tracefs tracefs /new/sys/kernel/tracing
mount -t cgroup2 cgroup2 /new/sys/fs/cgroup || fail "no cgroups"
mount -t tmpfs run /new/run
mkdir -p /new/run/vm/tmp
ln -s /proc/self/fd /new/dev/fd
cp /bin/busybox /job.sh /new/run/vm/
ip link set lo up
exec switch_root /new /run/vm/busybox sh /run/vm/job.sh
