# SPDX-License-Identifier: MIT OR Apache-2.0
# The part of the scenario with a spawned Linux, which is instance 3 and has two CPUs. At the same time kernel 1 (in Rust) and
# kernel 2 (in C) run. All links are native.

three=$(echo $given | cut -d, -f3) four=$(echo $given | cut -d, -f4)
pool=$(option pool)
# How many seconds a Linux can take to boot, in an emulator and while other kernels are busy.
boot=120
# A large file. It uses many pages of this Linux's memory, and shows if another kernel has written to them.
kept=/tmp/kept

# True if the scenario contains a spawned Linux.
spawns() {
	[ -n "$(option lives)" ]
}

spawned() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "spawned: make a large file" keep_file
	step "spawned: put the CPUs online that will be given away" put_online $one $two $three $four
	online_before=$(cat /sys/devices/system/cpu/online)
	refused_plans
	step "spawned: load" load native || return
	step "spawned: give, create, start" bring_up_all || return
	step "spawned: all kernels are up" await $boot all_up || { cat $device > $records; return; }
	kernels 1 2 3
	step "spawned: streams and pings" run_traffic "$(option messages)" 200 1 2 3
	results
	programs
	network
	step "spawned: during a run, take a CPU from kernel 3 and give it again" move_cpu
	lives
	ends
	one_by_one
	step "spawned: start and stop by the script of the systemd unit" by_script
	dmesg -c > /dev/null
	step "spawned: take the CPUs" mk take $one $two $three $four
	step "spawned: all CPUs are online" online_is $online_before
	step "spawned: the log of this Linux shows the boot of these CPUs" each_booted $one $two $three $four
	step "spawned: the timers of these CPUs run" each_counts $one $two $three $four
	step "spawned: unload" unload
	step "spawned: no trace of the module is left" nothing_left
	step "spawned: the large file has not changed" file_is_as_it_was
}

# bring_up_all [WORD...]: starts kernels 1, 2 and 3. WORD is added to the command line of kernel 3.
bring_up_all() {
	bring_up && mk give $three $four && create_linux && start 3 "$@"
}

# create_linux [POOL]: makes instance 3.
create_linux() {
	mk create 3 cpus=$three,$four pool=${1:-$pool}
}

all_up() {
	is_up 1 && is_up 2 && is_up 3
}

# Memory of this Linux.

keep_file() {
	local mib=$(awk '/MemAvailable/ { mib = int($2 / 2048); print mib < 200 ? mib : 200 }' /proc/meminfo)
	dd if=/dev/urandom of=$kept bs=1M count=$mib 2> /dev/null && md5sum $kept > $kept.md5 && echo "$mib MiB"
}

file_is_as_it_was() {
	md5sum -c $kept.md5 && rm $kept
}

# CPUs.

# put_online CPU...: puts these CPUs online. On a machine with many CPUs, Linux boots with only a few online.
put_online() {
	local cpu
	for cpu in "$@"; do
		echo 1 > /sys/devices/system/cpu/cpu$cpu/online || return
	done
}

# timer CPU: prints how many interrupts the local timer of the CPU has sent. /proc/interrupts has a column for each online CPU.
timer() {
	awk -v cpu=CPU$1 'NR == 1 { for (n = 1; n <= NF; n++) if ($n == cpu) column = n + 1 } $1 == "LOC:" && column { print $column }' /proc/interrupts
}

# counts CPU: true if the CPU is online, and its timer sends interrupts while a program runs on it.
counts() {
	local before=$(timer $1) after
	[ -n "$before" ] || { echo "CPU $1 is not online"; return 1; }
	[ $1 -lt 31 ] || { echo "CPU $1 is online; its timer is not checked, because the mask of taskset ends at CPU 30"; return; }
	taskset $(printf '%x' $((1 << $1))) sh -c 'n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done' || return
	sleep 0.2
	after=$(timer $1)
	echo "CPU $1: $before, then $after"
	[ "$after" -gt "$before" ]
}

each_booted() {
	local cpu
	for cpu in "$@"; do
		dmesg | grep "Booting Node [0-9]* Processor $cpu " | tail -n 1 | grep . || { echo "not CPU $cpu"; return 1; }
	done
}

each_counts() {
	local cpu
	for cpu in "$@"; do
		counts $cpu || return
	done
}

# Takes a CPU from the spawned Linux and gives it again, during a run with all kernels. No message may be lost.
move_cpu() {
	local messages=$(option messages)
	while [ $messages -le 1000000 ]; do
		stream_to $messages 1 2 3 || { watch_traffic; return 1; }
		go_and_come_back || { watch_traffic; cat $device; return 1; }
		if streaming; then
			watch_traffic && clean $messages 0 1 2 3
			return
		fi
		watch_traffic || return
		messages=$((messages * 4))
	done
	echo "all runs ended before the CPU had moved"
	return 1
}

go_and_come_back() {
	mk take $four from=3 && is "$(instance 3 4)" $three && counts $four && mk give $four to=3 && is "$(instance 3 4)" $three,$four
}

# Lives of the spawned Linux.

# whole_traffic ID...: does a run of the traffic test with these kernels. No message may be lost.
whole_traffic() {
	run_traffic 1000 10 "$@" && clean 1000 0 "$@"
}

lives() {
	local n=0
	while [ $n -lt "$(option lives)" ]; do
		n=$((n + 1))
		step "life $n: kill kernel 3 during a run, restart it" kill_and_revive 3 1 2 || return
		step "life $n: kernel 3 has the next incarnation number" is "$(instance 3 3)" "$(cat /tmp/lives)"
		step "life $n: all kernels are up" await $boot all_up || return
		tell_life 3
		step "life $n: traffic after the restart, no message is lost" whole_traffic 1 2 3
	done
}

# Tests each way in which the spawned Linux can end by itself. The command line of each life says how it must end.
ends() {
	local how word=end
	for how in $(option ends | tr , ' '); do
		mk kill 3
		# This life receives the messages that the life before left unread. So it waits for another word.
		[ $word = end ] && word=stop || word=end
		step "end by $how: start" start 3 mk_ipi.end=$how mk_ipi.word=$word || return
		step "end by $how: all kernels are up" await $boot all_up || return
		tell_life 3
		step "end by $how: traffic before the end, no message is lost" whole_traffic 1 2 3
		step "end by $how: the spawned Linux ends" ended $how $word
		case $how in
		panic | exit) step "end by $how: its terminal shows the panic" last_words 'end Kernel panic' ;;
		poweroff | halt | reboot) step "end by $how: its terminal shows its last message" last_words 'this kernel ends here' ;;
		esac
		step "end by $how: the clock of this Linux runs" second
		step "end by $how: traffic of the others after the end, no message is lost" whole_traffic 1 2
	done
	# Starts one more life, which checks that a kernel can also be started after the last of these ends.
	mk kill 3
	step "after all ends: start" start 3 || return
	step "after all ends: all kernels are up" await $boot all_up || return
	step "after all ends: traffic, no message is lost" whole_traffic 1 2 3
}

# ended HOW WORD: sends the spawned Linux the word for which it waits, and checks that it ends. The state of the link must be
# `gone` if it can say goodbye, and `suspect` if it cannot. After sysrq b, both states are accepted.
ended() {
	local tries=60
	while [ $tries -gt 0 ] && is_up 3; do
		# The word is sent as an invalid ping, which is not answered.
		mk send 3 0x101 $2 || return
		sleep 0.5
		tries=$((tries - 1))
	done
	instance 3 6
	case $1,$(instance 3 6) in
	poweroff,gone | halt,gone | reboot,gone | rmmod,gone) ;;
	panic,suspect | exit,suspect | sysrq-b,suspect | sysrq-b,gone) ;;
	*) return 1 ;;
	esac
}

# Checks that this Linux is not blocked: sleeping for one second must take less than five seconds.
second() {
	local before=$(cut -d' ' -f1 /proc/uptime | tr -d .) after
	sleep 1
	after=$(cut -d' ' -f1 /proc/uptime | tr -d .)
	echo "$((after - before)) hundredths of a second"
	[ $((after - before)) -lt 500 ]
}

# Removes the instances one after the other. After each removal, the remaining kernels must exchange messages without loss.
one_by_one() {
	step "spawned: stop, destroy kernel 3" stop_and_destroy 3
	step "spawned: traffic with kernels 1 and 2" whole_traffic 1 2
	step "spawned: stop, destroy kernel 1" stop_and_destroy 1
	step "spawned: traffic with kernel 2" whole_traffic 2
	step "spawned: create, start kernel 3 again" begin_again || return
	step "spawned: stop, destroy kernel 2" stop_and_destroy 2
	step "spawned: traffic with kernel 3" whole_traffic 3
	step "spawned: stop, destroy kernel 3 again" stop_and_destroy 3
}

# Starts and stops kernel 3 by the script mk-ipi-instance, which the systemd unit runs.
by_script() {
	mkdir -p /tmp/etc
	cat > /tmp/etc/3.conf <<-CONF
		CPUS="$three $four" POOL=$pool
		IMAGE=$(image_of 3) INITRD=/lib/mk_ipi/guest.cpio
		WORDS="earlyprintk=serial,$(port_of 3),115200,keep console=ttyprintk"
	CONF
	mk take $three $four
	MK_IPI_CONF=/tmp/etc mk-ipi-instance start 3 && await $boot is_up 3 || return
	MK_IPI_CONF=/tmp/etc mk-ipi-instance stop 3 && ! grep -q '^3 ' $device || return
	mk give $three $four
}

stop_and_destroy() {
	stop $1 && mk destroy $1
}

begin_again() {
	create_linux && start 3 && await $boot is_up 3
}

# Starts that must be refused, with an error number and a reason in the log.
refused_plans() {
	step "refused starts: load" load native || return
	step "refused starts: give CPUs" mk give $one $two $three $four
	step "refused starts: create instance 3" create_linux
	refused_plan "an image without a PVH note" 'Invalid argument' /bin/busybox
	refused_plan "a bzImage" 'Invalid argument' /lib/mk_ipi/bzImage
	refused_plan "an image linked for memory that was not set aside" 'Cannot allocate memory' /lib/mk_ipi/far.elf
	: > /tmp/empty
	# As large as the pool. The file is sparse, so it uses no memory.
	truncate -s $pool /tmp/large
	refused_plan "an initramfs that does not exist" 'No such file or directory' $(image_of 3) initrd=/none
	refused_plan "an initramfs that is a folder" 'Invalid argument' $(image_of 3) initrd=/lib
	refused_plan "an empty initramfs" 'Invalid argument' $(image_of 3) initrd=/tmp/empty
	refused_plan "an initramfs that is too large" 'No space left on device' $(image_of 3) initrd=/tmp/large
	rm /tmp/large
	refused_plan "a command line that is too long" 'Invalid argument' $(image_of 3) $(words_of 3) $(seq 1 600)
	mk destroy 3
	step "refused starts: create instance 3 with a small pool" create_linux 1M
	refused_plan "a pool that is too small for the initramfs" 'No space left on device' $(image_of 3) $(words_of 3)
	mk destroy 3
	step "refused starts: create instance 3 with a large pool" create_linux $((mib - mib / 32))M
	refused_plan "no memory is left for the image" 'Cannot allocate memory' $(image_of 3) $(words_of 3)
	step "refused starts: destroy instance 3" mk destroy 3
	step "refused starts: take, unload" take_and_unload
	refused_low
}

# refused_plan NAME ERROR WORD...: starts instance 3 with these words, which must be refused.
refused_plan() {
	local name=$1 error=$2
	shift 2
	refused "refused starts: $name" "$error" mk start 3 "$@"
}

take_and_unload() {
	mk take $one $two $three $four && unload
}

# Tests starts with too little memory below 1 MiB: first with none, then with enough for only one of two Linux kernels.
refused_low() {
	local half=$(((mib - 32) / 3))
	step "low memory: load without low=" insmod $module memory=$memory || return
	step "low memory: give, create" one_linux_each $half
	refused_plan "without low memory" 'Cannot allocate memory' $(image_of 3) $(words_of 3)
	step "low memory: destroy, take, unload" no_linux
	step "low memory: load with 64 KiB" insmod $module memory=$memory low=${low%+*}+64K || return
	step "low memory: give, create again" one_linux_each $half
	step "low memory: start a Linux on instance 1" mk start 1 $(image_of 3) $(words_of 3)
	refused_plan "no low memory is left for a second Linux" 'Cannot allocate memory' $(image_of 3) $(words_of 3)
	step "low memory: kill the Linux on instance 1" mk kill 1
	step "low memory: destroy, take, unload again" no_linux
}

# one_linux_each MIB: makes instances 1 and 3, each with one CPU and a pool of MIB MiB.
one_linux_each() {
	mk give $three $four && mk create 1 cpus=$three pool=$1M && mk create 3 cpus=$four pool=$1M
}

no_linux() {
	mk destroy 1 && mk destroy 3 && mk take $three $four && unload
}
