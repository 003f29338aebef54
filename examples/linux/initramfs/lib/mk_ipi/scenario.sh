# SPDX-License-Identifier: MIT OR Apache-2.0
# The scenario. First it checks that the module refuses to be loaded with wrong parameters. Then it tests each generation, with
# commands that must be refused. Then it runs the cycles, and the tests with a spawned Linux (spawn.sh).

memory=$(option memory)
mib=${memory#*+}
mib=${mib%M}
low=$(option low)
module=/lib/modules/mk_ipi.ko
# Linux's numbers of the CPUs that are given away. On a large machine these are the last ones. The first two are for kernels
# 1 and 2.
given=$(option cpus)
one=$(echo $given | cut -d, -f1) two=$(echo $given | cut -d, -f2)
# A number that no instance and no CPU has.
no=9
[ $one -lt 9 ] || no=600
online_before=$(cat /sys/devices/system/cpu/online)

# load GENERATION: loads the module.
load() {
	insmod $module memory=$memory generation=$1 ${low:+low=$low}
}

unload() {
	rmmod mk_ipi
}

# Gives two CPUs away, makes instances 1 and 2, and starts their kernels.
bring_up() {
	mk give $one $two && mk create 1 cpus=$one && mk create 2 cpus=$two && start 1 && start 2
}

# stop ID: stops a kernel. On the native link the kernel must say goodbye.
stop() {
	mk stop $1 || return
	case $(head -n 1 $device) in
	*native) is "$(instance $1 6)" gone || { cat $device; return 1; } ;;
	esac
}

# Undoes bring_up.
bring_down() {
	stop 1 && stop 2 && mk destroy 1 && mk destroy 2 && mk take $one $two
}

online_is() {
	is "$(cat /sys/devices/system/cpu/online)" "$1" || {
		cat /sys/devices/system/cpu/online
		return 1
	}
}

# traces: prints a line for each trace of the loaded module that Linux shows.
traces() {
	grep -l mk_ipi /proc/iomem /proc/interrupts /sys/devices/system/cpu/hotplug/states
	mappings
	ls -d $device /sys/module/mk_ipi /sys/kernel/debug/mk_ipi 2> /dev/null
	is "$(ls /sys/kernel/irq | wc -l)" "$irqs_before" || echo interrupts
	ls -d /sys/class/net/mk* 2> /dev/null
}

# mappings: prints the word "mappings" if a part of the memory for instances is mapped.
mappings() {
	local first=$((${memory%+*})) at
	for at in $(sed -n 's/.*phys=\(0x[0-9a-f]*\).*/\1/p' /proc/vmallocinfo); do
		[ $((at)) -lt $first ] || [ $((at)) -ge $((first + mib * 1048576)) ] || { echo mappings; return; }
	done
}

# True if all traces that `nothing_left` searches for exist while the module is loaded. Without this check, `nothing_left`
# could succeed because it searches for the wrong traces.
all_there() {
	traces
	[ "$(traces | grep -vc /sys/class/net)" = 8 ]
}

nothing_left() {
	traces
	[ -z "$(traces)" ]
}

# Records the results of the last run of the traffic test.
results() {
	sed 's/^/@/' $traffic > $records
}

# True if Linux has counted doorbell interrupts, and mk-ipi-core has handled some. Without doorbells the tick would still find
# the messages, but later, so the traffic test alone does not prove this.
in_interrupts() {
	awk '/mk_ipi/ { print; sum = $2 } END { exit !(sum > 0) }' /proc/interrupts &&
		awk '/ interrupts:/ { print; n = $2 + 0 } END { exit !(n > 0) }' /sys/kernel/debug/mk_ipi/statistics
}

# True if the regions of all kernels are in /proc/iomem.
in_iomem() {
	for id in 0 1 2; do
		grep "mk_ipi region $id" /proc/iomem || return 1
	done
}

# Prints the content of /dev/mk_ipi. Both kernels must be running. On the native link they must also be up.
instances() {
	cat $device
	is "$(instance 1 2) $(instance 2 2)" 'running running' || return
	[ $1 != native ] || { await 5 is_up 1 && await 5 is_up 2; }
}

# Runs the inspector on this running machine. It must show three regions, and no error. On the native link a second run must
# show that the heartbeats of the peers change.
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

# generation NAME: runs all steps of one generation.
generation() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "$1: load" load $1 || return
	step "$1: give, create, start" bring_up || return
	step "$1: all traces of the module exist" all_there
	kernels 1 2
	step "$1: the regions are in /proc/iomem" in_iomem
	step "$1: both kernels run" instances $1
	# With a spawned Linux, spawn.sh runs the long native streams, between all four kernels.
	if [ $1 != native ] || ! spawns; then
		step "$1: streams and pings" run_traffic "$(option messages)" 200 1 2
		results
	else
		step "$1: streams and pings" run_traffic 1000 200 1 2
	fi
	step "$1: doorbells are counted in /proc/interrupts" in_interrupts
	step "$1: the inspector finds no error" inspected $1
	step "$1: there are statistics" grep -A 3 Stats /sys/kernel/debug/mk_ipi/statistics
	c_module $1
	[ $1 = native ] && refusals
	step "$1: stop, destroy, take" bring_down
	step "$1: all CPUs are online" online_is $online_before
	step "$1: unload" unload
	step "$1: no trace of the module is left" nothing_left
}

# True if the C module has logged the report of kernel 1.
c_answered() {
	dmesg | grep 'report: type 0x112, 152 bytes, from APIC 2'
}

c_module() {
	dmesg -c > /dev/null
	step "$1: load the C module" insmod /lib/modules/mk_ipi_test_c.ko || return
	step "$1: the C module gets an answer" await 5 c_answered
	refused_by_linux "$1: unload mk_ipi while the C module is loaded" 'Resource temporarily unavailable' unload
	step "$1: unload the C module" rmmod mk_ipi_test_c
}

# Commands that must be refused while kernels 1 and 2 run. Each of them must fail with an error number, write a reason to the
# log, and change nothing.
refusals() {
	local before
	before=$(cat $device | cut -d' ' -f1-6)
	refused "refused: start a kernel that runs" 'Device or resource busy' mk start 1 /lib/mk_ipi/k1.elf
	refused "refused: create an instance that exists" 'File exists' mk create 1 cpus=$one
	refused "refused: create with a CPU of Linux" 'Device or resource busy' mk create 3 cpus=1
	refused "refused: create with a CPU of another instance" 'Device or resource busy' mk create 3 cpus=$one
	refused "refused: create without a CPU" 'Invalid argument' mk create 3
	refused "refused: create instance 0" 'Invalid argument' mk create 0 cpus=$one
	refused "refused: create instance 16" 'Invalid argument' mk create 16 cpus=$one
	refused "refused: give the CPU of the doorbell" 'Device or resource busy' mk give 0
	refused "refused: give a CPU that does not exist" 'No such device or address' mk give $no
	refused "refused: give a CPU twice" 'File exists' mk give $one
	refused "refused: give two CPUs, of which one cannot be given" 'Device or resource busy' mk give 1 0
	refused "refused: take the CPU of an instance" 'Device or resource busy' mk take $one
	refused "refused: destroy an instance that runs" 'Device or resource busy' mk destroy 1
	refused "refused: stop an instance that does not exist" 'No such file or directory' mk stop 7
	refused "refused: send to an instance that does not exist" 'Invalid argument' mk send 7 0x300 hello
	refused "refused: send with a type that is no number" 'Invalid argument' mk send 1 type hello
	refused "refused: put a given CPU online" 'Device or resource busy' put /sys/devices/system/cpu/cpu$one/online 1
	refused "refused: an unknown command" 'Invalid argument' mk frobnicate 1
	refused "refused: a command with too many words" 'Invalid argument' mk kill 1 2
	refused "refused: traffic without another kernel" 'Invalid argument' put $traffic "run 1 1"
	refused "refused: traffic with an instance that does not exist" 'No such file or directory' put $traffic "run 1 1 5"
	refused_by_linux "refused: change the affinity of the doorbell" 'Operation not permitted' put /proc/irq/$(our_irq)/smp_affinity 2
	refused_by_linux "refused: unload the module while instances exist" 'Resource temporarily unavailable' unload
	refused_by_linux "refused: a command that is longer than a page" 'Invalid argument' mk "$(seq 1 2000)"
	step "refused: random bytes, and many wrong commands" garbage
	step "the refused commands have changed nothing" is "$before" "$(cat $device | cut -d' ' -f1-6)"
	step "the command send, with dynamic debug" traced
	refusals_when_stopped
}

# True if dynamic debug logs a message that the command `send` sends.
traced() {
	local control=/sys/kernel/debug/dynamic_debug/control
	put $control 'module mk_ipi +p' || return
	dmesg -c > /dev/null
	mk send 1 0x300 hello || return
	put $control 'module mk_ipi -p'
	dmesg | grep 'mk_ipi: to 1: type 0x300, 5 bytes: 0'
}

# Prints the number of the doorbell's interrupt.
our_irq() {
	awk '/mk_ipi/ { sub(":", "", $1); print $1 }' /proc/interrupts
}

# Writes random bytes and wrong commands to the device and to the file `traffic`. None of them may be accepted.
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
			! mk "$verb $rest" 2> /dev/null || { echo "accepted: $verb $rest"; return 1; }
		done
	done
	for rest in ' ' run 'run 1' 'run x 1 1' 'run 1 x 1' 'run 1 1 0' 'run 1 1 16' 'run 1 1001 1' 'run 4294967297 1 1' 'run 1 1 1 x' 'run -1 1 1'; do
		! put $traffic "$rest" 2> /dev/null || { echo "accepted: $rest"; return 1; }
	done
}

# Commands about images and pools that must be refused while kernel 1 is stopped.
refusals_when_stopped() {
	step "stop kernel 1" stop 1
	refused "refused: stop a kernel that is stopped" 'Invalid argument' mk stop 1
	refused "refused: start with an image that does not exist" 'No such file or directory' mk start 1 /lib/mk_ipi/none.elf
	refused "refused: start a file that is no ELF file" 'Invalid argument' mk start 1 /init
	refused "refused: start an ELF file without a PVH entry" 'Invalid argument' mk start 1 /bin/busybox
	refused "refused: start an image in the memory of another instance" 'Device or resource busy' mk start 1 /lib/mk_ipi/k2.elf
	refused "refused: start without a file" 'Invalid argument' mk start 1
	if head -n 1 $device | grep -q native; then
		step "destroy instance 1, while kernel 2 has its region mapped" mk destroy 1
		step "stop kernel 2" stop 2
	else
		refused "refused: destroy instance 1 while kernel 2 runs" 'Device or resource busy' mk destroy 1
		step "stop kernel 2" stop 2
		step "destroy instance 1" mk destroy 1
	fi
	refused "refused: create with a pool that is too large" 'Cannot allocate memory' mk create 1 cpus=$one pool=${mib}M
	refused "refused: create with a pool that is too small" 'Invalid argument' mk create 1 cpus=$one pool=4K
	step "create instance 1 again" mk create 1 cpus=$one
	step "start kernel 1 again" start 1
	step "start kernel 2 again" start 2
	step "traffic after the refused commands" run_traffic 1000 10 1 2
	step "no message of this traffic was lost" clean 1000 0 1 2
}

# refused_load NAME ERROR PARAMETERS: loads the module with these parameters, which must be refused.
refused_load() {
	refused "refused: load $1" "$2" insmod $module $3
}

refused_loads() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	refused_load "without memory" 'Invalid argument' generation=native
	refused_load "with Linux's memory" 'Device or resource busy' memory=0x2000000+16M
	refused_load "with memory that is not reserved" 'No such device or address' memory=0x200000000+16M
	refused_load "with a name of memory that does not exist" 'No such device' memory=nobody
	refused_load "with memory that is not a multiple of a page" 'Invalid argument' memory=${memory%+*}+100
	refused_load "with an unknown generation" 'Invalid argument' "memory=$memory generation=v3"
	step "no trace is left of the refused loads" nothing_left
}

# kill_and_revive DEAD OTHER...: kills kernel DEAD in the middle of a run, and starts it again. The other kernels, including
# this one, must lose no message. On the native link no message to or from DEAD may be lost either. If the run has ended before
# the kill, the test is repeated with more messages.
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
	echo "all runs ended before the kill"
	return 1
}

# account DEAD ID...: checks and prints the results of the streams between the killed kernel DEAD and the kernels ID. Also
# stores them, for the sum of all deaths.
account() {
	accounted "$@" > /tmp/account || { cat /tmp/account; return 1; }
	tee -a /tmp/deaths < /tmp/account
}

# Prints how many messages were lost and how many were in doubt, in all runs in which a kernel was killed (native). Fails if any
# was lost.
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
	step "cycle $1: no message was lost" clean 1000 0 1 2
	step "cycle $1: kill kernel 1 during a run, restart it" kill_and_revive 1 2
	step "cycle $1: kernel 1 has the next incarnation number" is "$(instance 1 3)" "$(cat /tmp/lives)"
	step "cycle $1: traffic after the restart" run_traffic 1000 10 1 2
	step "cycle $1: no message was lost after the restart" clean 1000 0 1 2
	step "cycle $1: stop, destroy, take" bring_down
	step "cycle $1: all CPUs are online" online_is $online_before
	step "cycle $1: unload" unload
	step "cycle $1: no trace of the module is left" nothing_left
	record "{\"cycles\":{\"done\":$1}}"
}

# Fails if kmemleak finds memory leaks. Does nothing if the kernel has no kmemleak.
leaks() {
	local leaks=/sys/kernel/debug/kmemleak
	[ -e $leaks ] || { echo "not run: this kernel has no kmemleak"; return; }
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
	# If both generations are tested, the cycles use them alternately.
	while [ $n -lt "$(option cycles)" ]; do
		n=$((n + 1))
		[ $((n % 2)) -eq 1 ] && g=${generations%% *} || g=${generations##* }
		cycle $n $g
	done
	spawns && spawned
	[ ! -e /tmp/deaths ] || step "no message was lost by the kills during runs" deaths
	step "no memory leak" leaks
}
