# Lists the processes among what the steps print whenever a line comes in. Each of its lines is
# written whole and begins with a word, so none is taken for one of the job's own. It runs nothing of
# the host's files, which may be what hangs.
processes() {
    for task in $($box ls -d /proc/[0-9]*/task/[0-9]* | $box sort -t / -k 3,3rn -k 5,5n); do
        status=$($box grep -E '^(Name|State|PPid):' "$task/status" 2>/dev/null) || continue
        set -- $status
        # Threads of the kernel that wait for work are many, and say nothing.
        case "$status" in *"PPid:	2") case "$status" in *'State:	'[IS]*) continue ;; esac ;; esac
        echo "$task: $* in $($box timeout 2 $box cat "$task/wchan")"
        $box timeout 2 $box head -n 6 "$task/stack"
    done
}
watch() {
    while read -r _; do
        echo
        processes 2>&1 | $box head -n 150 | while read -r line; do echo "watch: $line"; done
        echo "watch: end"
    done
}
box=/run/vm/busybox
watch </dev/ttyS1 &
