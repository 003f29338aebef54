# SPDX-License-Identifier: MIT OR Apache-2.0
# The scenario: both generations with all that can be observed of them, then what must be refused, then the cycles.

memory=$(option memory)
mib=${memory#*+}
mib=${mib%M}
low=$(option low)
module=/lib/modules/mk_ipi.ko
# The CPUs that are given away, by Linux's numbers: the last ones of a large machine. The first two are for kernels 1
# and 2.
given=$(option cpus)
one=$(echo $given | cut -d, -f1) two=$(echo $given | cut -d, -f2)
# A number that is neither an instance nor a CPU.
no=9
[ $one -lt 9 ] || no=600
online_before=$(cat /sys/devices/system/cpu/online)

load() {
	insmod $module memory=$memory generation=$1 ${low:+low=$low}
}

unload() {
	rmmod mk_ipi
}

# Gives both CPUs, makes both instances, and starts both kernels.
bring_up() {
	mk give $one $two && mk create 1 cpus=$one && mk create 2 cpus=$two && start 1 && start 2
}

# stop ID: stops it. On the native link the kernel must say goodbye.
stop() {
	mk stop $1 || return
	case $(head -n 1 $device) in
	*native) is "$(instance $1 6)" gone || { cat $device; return 1; } ;;
	esac
}

bring_down() {
	stop 1 && stop 2 && mk destroy 1 && mk destroy 2 && mk take $one $two
}

online_is() {
	is "$(cat /sys/devices/system/cpu/online)" "$1" || {
		cat /sys/devices/system/cpu/online
		return 1
	}
}

# traces: prints what can be seen of the module from outside, one kind per line.
traces() {
	grep -l mk_ipi /proc/iomem /proc/interrupts /sys/devices/system/cpu/hotplug/states
	mappings
	ls -d $device /sys/module/mk_ipi /sys/kernel/debug/mk_ipi 2> /dev/null
	is "$(ls /sys/kernel/irq | wc -l)" "$irqs_before" || echo interrupts
	ls -d /sys/class/net/mk* 2> /dev/null
}

# mappings: prints a word if any of the memory for instances is mapped.
mappings() {
	local first=$((${memory%+*})) at
	for at in $(sed -n 's/.*phys=\(0x[0-9a-f]*\).*/\1/p' /proc/vmallocinfo); do
		[ $((at)) -lt $first ] || [ $((at)) -ge $((first + mib * 1048576)) ] || { echo mappings; return; }
	done
}

# All that `nothing_left` looks for must be there while the module is loaded. Otherwise `nothing_left` would prove
# nothing.
all_there() {
	traces
	[ "$(traces | grep -vc /sys/class/net)" = 8 ]
}

nothing_left() {
	traces
	[ -z "$(traces)" ]
}

results() {
	sed 's/^/@/' $traffic > $records
}

# Doorbells came, and were passed to core. Without them the tick would still find the messages, but late.
in_interrupts() {
	awk '/mk_ipi/ { print; sum = $2 } END { exit !(sum > 0) }' /proc/interrupts &&
		awk '/ interrupts:/ { print; n = $2 + 0 } END { exit !(n > 0) }' /sys/kernel/debug/mk_ipi/statistics
}

in_iomem() {
	for id in 0 1 2; do
		grep "mk_ipi region $id" /proc/iomem || return 1
	done
}

# Shows what `cat` of the device prints. On the native link the kernels must be seen as up.
instances() {
	cat $device
	is "$(instance 1 2) $(instance 2 2)" 'running running' || return
	[ $1 != native ] || { await 5 is_up 1 && await 5 is_up 2; }
}

# Runs the inspector on this machine while it runs: all three regions must be there, and nothing may be broken. A second
# look must show that the peers' heartbeats go on.
inspected() {
	local shown=/tmp/inspected
	mk-ipi-inspect --messages 0 /sys/kernel/debug/mk_ipi > $shown
	local broken=$?
	cat $shown
	[ $broken = 0 ] && is "$(grep -c '^region 0x' $shown)" 3 || return
	[ $1 != native ] || mk-ipi-inspect --watch 2 --times 1 /sys/kernel/debug/mk_ipi
}

is_up() {
	is "$(instance $1 6)" up
}

# Runs all steps of one generation.
generation() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "$1: load" load $1 || return
	step "$1: give, create, start" bring_up || return
	step "$1: traces" all_there
	kernels 1 2
	step "$1: /proc/iomem" in_iomem
	step "$1: instances" instances $1
	# With a spawned Linux, spawn.sh runs the native streams, those of all four kernels.
	if [ $1 != native ] || ! spawns; then
		step "$1: streams and pings" run_traffic "$(option messages)" 200 1 2
		results
	else
		step "$1: streams and pings" run_traffic 1000 200 1 2
	fi
	step "$1: /proc/interrupts" in_interrupts
	step "$1: inspector" inspected $1
	step "$1: statistics" grep -A 3 Stats /sys/kernel/debug/mk_ipi/statistics
	c_module $1
	[ $1 = native ] && refusals
	step "$1: stop, destroy, take" bring_down
	step "$1: all CPUs online" online_is $online_before
	step "$1: unload" unload
	step "$1: nothing left" nothing_left
}

c_answered() {
	dmesg | grep 'report: type 0x112, 152 bytes, from APIC 2'
}

c_module() {
	dmesg -c > /dev/null
	step "$1: C module" insmod /lib/modules/mk_ipi_test_c.ko || return
	step "$1: C module's answer" await 5 c_answered
	refused_by_linux "$1: unload under a C module" 'Resource temporarily unavailable' unload
	step "$1: C module unload" rmmod mk_ipi_test_c
}

# What must be refused while kernels 1 and 2 run. Each refusal has an error and words in the log, and changes nothing.
refusals() {
	local before
	before=$(cat $device | cut -d' ' -f1-6)
	refused "started twice" 'Device or resource busy' mk start 1 /lib/mk_ipi/k1.elf
	refused "instance twice" 'File exists' mk create 1 cpus=$one
	refused "CPU of Linux" 'Device or resource busy' mk create 3 cpus=1
	refused "CPU of another" 'Device or resource busy' mk create 3 cpus=$one
	refused "no CPU" 'Invalid argument' mk create 3
	refused "instance 0" 'Invalid argument' mk create 0 cpus=$one
	refused "instance 16" 'Invalid argument' mk create 16 cpus=$one
	refused "doorbell's CPU" 'Device or resource busy' mk give 0
	refused "no such CPU" 'No such device or address' mk give $no
	refused "CPU given twice" 'File exists' mk give $one
	refused "one good, one bad" 'Device or resource busy' mk give 1 0
	refused "CPU in use taken" 'Device or resource busy' mk take $one
	refused "running destroyed" 'Device or resource busy' mk destroy 1
	refused "stranger stopped" 'No such file or directory' mk stop 7
	refused "stranger sent to" 'Invalid argument' mk send 7 0x300 hello
	refused "type is no number" 'Invalid argument' mk send 1 type hello
	refused "CPU put online" 'Device or resource busy' put /sys/devices/system/cpu/cpu$one/online 1
	refused "no command" 'Invalid argument' mk frobnicate 1
	refused "too many words" 'Invalid argument' mk kill 1 2
	refused "traffic of nobody" 'Invalid argument' put $traffic "run 1 1"
	refused "traffic of a stranger" 'No such file or directory' put $traffic "run 1 1 5"
	refused_by_linux "affinity" 'Operation not permitted' put /proc/irq/$(our_irq)/smp_affinity 2
	refused_by_linux "unload in use" 'Resource temporarily unavailable' unload
	refused_by_linux "too long" 'Invalid argument' mk "$(seq 1 2000)"
	step "garbage" garbage
	step "nothing has changed" is "$before" "$(cat $device | cut -d' ' -f1-6)"
	step "a message by hand, traced" traced
	refusals_when_stopped
}

# Dynamic debug logs each message while it is on.
traced() {
	local control=/sys/kernel/debug/dynamic_debug/control
	put $control 'module mk_ipi +p' || return
	dmesg -c > /dev/null
	mk send 1 0x300 hello || return
	put $control 'module mk_ipi -p'
	dmesg | grep 'mk_ipi: to 1: type 0x300, 5 bytes: 0'
}

our_irq() {
	awk '/mk_ipi/ { sub(":", "", $1); print $1 }' /proc/interrupts
}

# Sends random bytes, and commands that are each wrong in some way: none may be accepted.
garbage() {
	local n verb rest
	for n in $(seq 1 200); do
		dd if=/dev/urandom of=/tmp/garbage bs=$((n * 7)) count=1 2> /dev/null || return 1
		! cat /tmp/garbage 2> /dev/null > $device || return 1
		! cat /tmp/garbage 2> /dev/null > $traffic || return 1
	done
	for verb in give take create start stop kill destroy send GIVE 'give\000' ''; do
		for rest in '' ' ' x -1 $no 99$no 256$no 4294967296 18446744073709551616 0x 0xfg "$no x" "$no $no $no" "$no cpus=" "$no cpus=0" "$no cpus=1,1" \
			"$no cpus=$no pool=1M" "$no pool=1M" "$no cpus=$one,$one" "$no cpus=0,0,0,0,0,0,0,0,0" "$no /" "$no /dev/zero" "$no 0x300"; do
			! mk "$verb $rest" 2> /dev/null || { echo "taken: $verb $rest"; return 1; }
		done
	done
	for rest in ' ' run 'run 1' 'run x 1 1' 'run 1 x 1' 'run 1 1 0' 'run 1 1 16' 'run 1 1001 1' 'run 4294967297 1 1' 'run 1 1 1 x' 'run -1 1 1'; do
		! put $traffic "$rest" 2> /dev/null || { echo "taken: $rest"; return 1; }
	done
}

# More refusals, with kernel 1 stopped: images and pools.
refusals_when_stopped() {
	step "stop 1" stop 1
	refused "stopped twice" 'Invalid argument' mk stop 1
	refused "no such image" 'No such file or directory' mk start 1 /lib/mk_ipi/none.elf
	refused "no image" 'Invalid argument' mk start 1 /init
	refused "image of another kind" 'Invalid argument' mk start 1 /bin/busybox
	refused "image of another instance" 'Device or resource busy' mk start 1 /lib/mk_ipi/k2.elf
	refused "no file named" 'Invalid argument' mk start 1
	if head -n 1 $device | grep -q native; then
		step "destroy 1, while 2 has its region mapped" mk destroy 1
		step "stop 2" stop 2
	else
		refused "destroyed under another" 'Device or resource busy' mk destroy 1
		step "stop 2" stop 2
		step "destroy 1" mk destroy 1
	fi
	refused "no pool left" 'Cannot allocate memory' mk create 1 cpus=$one pool=${mib}M
	refused "pool too small" 'Invalid argument' mk create 1 cpus=$one pool=4K
	step "create 1 again" mk create 1 cpus=$one
	step "start 1 again" start 1
	step "start 2 again" start 2
	step "traffic after all that" run_traffic 1000 10 1 2
	step "which is whole" clean 1000 0 1 2
}

refused_load() {
	refused "load $1" "$2" insmod $module $3
}

refused_loads() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	refused_load "without memory" 'Invalid argument' generation=native
	refused_load "with Linux's memory" 'Device or resource busy' memory=0x2000000+16M
	refused_load "with memory that is not reserved" 'No such device or address' memory=0x200000000+16M
	refused_load "with memory of no name" 'No such device' memory=nobody
	refused_load "with half a page" 'Invalid argument' memory=${memory%+*}+100
	refused_load "with another generation" 'Invalid argument' "memory=$memory generation=v3"
	step "nothing left of these" nothing_left
}

# kill_and_revive DEAD OTHER...: kernel DEAD dies in mid-stream and lives again. The others, including this one, lose
# nothing, and on the native link nothing is lost at all. A stream that ended too soon proves nothing: then it tries
# again, with a longer one.
kill_and_revive() {
	local dead=$1 messages=$cycle_messages lives=$(instance $1 3)
	shift
	while [ $messages -le 1000000 ]; do
		stream_to $messages $dead "$@" || { watch_traffic; return 1; }
		mk kill $dead || { watch_traffic; return 1; }
		lives=$((lives + 1))
		echo $lives > /tmp/lives
		if streaming; then
			start $dead && watch_traffic && clean $messages 0 "$@" || return
			! head -n 1 $device | grep -q native || account $dead 0 "$@"
			return
		fi
		watch_traffic || return
		start $dead || return
		messages=$((messages * 4))
	done
	echo "no stream lasts"
	return 1
}

# account DEAD OTHER...: prints what the death cost. It also stores it, for the sum of all deaths.
account() {
	accounted "$@" > /tmp/account || { cat /tmp/account; return 1; }
	tee -a /tmp/deaths < /tmp/account
}

# Prints what all deaths in mid-stream cost (native).
deaths() {
	awk '/ in doubt$/ { streams++; in_doubt += $4 }
		/ lost, / { lost += $6 }
		END { print streams " streams to a kernel that died: " lost + 0 " messages lost, " in_doubt " in doubt"; exit lost > 0 }' /tmp/deaths
}

cycle() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "cycle $1: load" load $2 || return
	step "cycle $1: give, create, start" bring_up || return
	step "cycle $1: traffic" run_traffic 1000 10 1 2
	step "cycle $1: all whole" clean 1000 0 1 2
	step "cycle $1: kill in mid-stream, restart" kill_and_revive 1 2
	step "cycle $1: its next life" is "$(instance 1 3)" "$(cat /tmp/lives)"
	step "cycle $1: traffic after the restart" run_traffic 1000 10 1 2
	step "cycle $1: all whole again" clean 1000 0 1 2
	step "cycle $1: stop, destroy, take" bring_down
	step "cycle $1: all CPUs online" online_is $online_before
	step "cycle $1: unload" unload
	step "cycle $1: nothing left" nothing_left
	record "{\"cycles\":{\"done\":$1}}"
}

# Reports memory leaks by kmemleak, if the kernel has it.
leaks() {
	local leaks=/sys/kernel/debug/kmemleak
	[ -e $leaks ] || { echo "this kernel does not look for leaks"; return; }
	echo scan > $leaks
	sleep 6
	echo scan > $leaks
	! grep -A 20 'unreferenced' $leaks
}

cycle_messages=20000

scenario() {
	local generations=$(option generation) g n=0
	[ $generations = both ] && generations="native rfc-v2"
	refused_loads
	for g in $generations; do
		generation $g
	done
	# With both generations, the cycles use them in turn.
	while [ $n -lt "$(option cycles)" ]; do
		n=$((n + 1))
		[ $((n % 2)) -eq 1 ] && g=${generations%% *} || g=${generations##* }
		cycle $n $g
	done
	spawns && spawned
	[ ! -e /tmp/deaths ] || step "deaths in mid-stream" deaths
	step "leaks" leaks
}
