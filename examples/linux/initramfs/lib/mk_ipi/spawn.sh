# SPDX-License-Identifier: MIT OR Apache-2.0
# The part of the scenario with a spawned Linux: instance 3, with two CPUs. Beside it run kernel 1, in Rust, and kernel
# 2, in C. All links are native.

three=$(echo $given | cut -d, -f3) four=$(echo $given | cut -d, -f4)
pool=$(option pool)
# Seconds that a Linux may take to boot in an emulator while other kernels are busy.
boot=120
# A large file. Its content lies in many places of this Linux's memory.
kept=/tmp/kept

spawns() {
	[ -n "$(option lives)" ]
}

spawned() {
	irqs_before=$(ls /sys/kernel/irq | wc -l)
	step "spawned: a large file" keep_file
	step "spawned: the CPUs to give are online" put_online $one $two $three $four
	online_before=$(cat /sys/devices/system/cpu/online)
	refused_plans
	step "spawned: load" load native || return
	step "spawned: give, create, start" bring_up_all || return
	step "spawned: all are up" await $boot all_up || { cat $device > $records; return; }
	kernels 1 2 3
	step "spawned: streams and pings" run_traffic "$(option messages)" 200 1 2 3
	results
	programs
	network
	step "spawned: a CPU goes and comes back in mid-stream" move_cpu
	lives
	ends
	one_by_one
	step "spawned: by the unit's script" by_script
	dmesg -c > /dev/null
	step "spawned: take" mk take $one $two $three $four
	step "spawned: all CPUs online" online_is $online_before
	step "spawned: this Linux tells of their boot" each_booted $one $two $three $four
	step "spawned: their timers count" each_counts $one $two $three $four
	step "spawned: unload" unload
	step "spawned: nothing left" nothing_left
	step "spawned: the large file is as it was" file_is_as_it_was
}

# bring_up_all [WORD...]: brings up all kernels; the Linux gets these words.
bring_up_all() {
	bring_up && mk give $three $four && create_linux && start 3 "$@"
}

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

# put_online CPU...: puts them online. With many CPUs Linux begins with only a few.
put_online() {
	local cpu
	for cpu in "$@"; do
		echo 1 > /sys/devices/system/cpu/cpu$cpu/online || return
	done
}

# timer CPU: prints how often its local timer has rung. In /proc/interrupts the columns are the CPUs that are online.
timer() {
	awk -v cpu=CPU$1 'NR == 1 { for (n = 1; n <= NF; n++) if ($n == cpu) column = n + 1 } $1 == "LOC:" && column { print $column }' /proc/interrupts
}

# counts CPU: true if the CPU is online, and its timer rings while there is work.
counts() {
	local before=$(timer $1) after
	[ -n "$before" ] || { echo "CPU $1 is not online"; return 1; }
	[ $1 -lt 31 ] || { echo "CPU $1 is online, and has no name in a mask"; return; }
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

# The spawned Linux gives a CPU up and gets it back, while all kernels stream. Nothing may be lost.
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
	echo "no stream lasts"
	return 1
}

go_and_come_back() {
	mk take $four from=3 && is "$(instance 3 4)" $three && counts $four && mk give $four to=3 && is "$(instance 3 4)" $three,$four
}

# Lives of the spawned Linux.

whole_traffic() {
	run_traffic 1000 10 "$@" && clean 1000 0 "$@"
}

lives() {
	local n=0
	while [ $n -lt "$(option lives)" ]; do
		n=$((n + 1))
		step "life $n: kill in mid-stream, restart" kill_and_revive 3 1 2 || return
		step "life $n: its next life" is "$(instance 3 3)" "$(cat /tmp/lives)"
		step "life $n: all are up" await $boot all_up || return
		tell_life 3
		step "life $n: traffic after the restart, whole" whole_traffic 1 2 3
	done
}

# Tests each way in which it can end by itself. A life is told at its start how it must end.
ends() {
	local how word=end
	for how in $(option ends | tr , ' '); do
		mk kill 3
		# Messages that the former life left unread go to this one, so it waits for another word.
		[ $word = end ] && word=stop || word=end
		step "end by $how: start" start 3 mk_ipi.end=$how mk_ipi.word=$word || return
		step "end by $how: all are up" await $boot all_up || return
		tell_life 3
		step "end by $how: traffic before, whole" whole_traffic 1 2 3
		step "end by $how: the end" ended $how $word
		case $how in
		panic | exit) step "end by $how: its console has its last words" last_words 'end Kernel panic' ;;
		poweroff | halt | reboot) step "end by $how: its console has its last words" last_words 'this kernel ends here' ;;
		esac
		step "end by $how: a second lasts a second" second
		step "end by $how: traffic after, whole" whole_traffic 1 2
	done
	# The last of these lives is an ordinary one. It shows that the last end, too, left everything in order.
	mk kill 3
	step "after all ends: start" start 3 || return
	step "after all ends: all are up" await $boot all_up || return
	step "after all ends: traffic, whole" whole_traffic 1 2 3
}

# ended HOW WORD: tells the spawned Linux to end, and checks that it does. If it has time, it says goodbye.
ended() {
	local tries=60
	while [ $tries -gt 0 ] && is_up 3; do
		# The word that it waits for is an invalid ping, which is not answered.
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

# Checks that this Linux makes progress: a second of its own clock takes not much more than a second.
second() {
	local before=$(cut -d' ' -f1 /proc/uptime | tr -d .) after
	sleep 1
	after=$(cut -d' ' -f1 /proc/uptime | tr -d .)
	echo "$((after - before)) hundredths"
	[ $((after - before)) -lt 500 ]
}

# The instances are removed one after the other; the remaining ones exchange messages.
one_by_one() {
	step "spawned: stop, destroy 3" stop_and_destroy 3
	step "spawned: 1 and 2 get on" whole_traffic 1 2
	step "spawned: stop, destroy 1" stop_and_destroy 1
	step "spawned: 2 gets on" whole_traffic 2
	step "spawned: create, start 3 again" begin_again || return
	step "spawned: stop, destroy 2" stop_and_destroy 2
	step "spawned: 3 gets on" whole_traffic 3
	step "spawned: stop, destroy 3 again" stop_and_destroy 3
}

# What systemd would run: start and stop, each with all its parts.
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

# What cannot be started. Each is refused with an error and words. Then what can be started is started.
refused_plans() {
	step "plans: load" load native || return
	step "plans: give" mk give $one $two $three $four
	step "plans: create 3" create_linux
	refused_plan "no PVH note" 'Invalid argument' /bin/busybox
	refused_plan "a boot loader's image" 'Invalid argument' /lib/mk_ipi/bzImage
	refused_plan "an image linked elsewhere" 'Cannot allocate memory' /lib/mk_ipi/far.elf
	: > /tmp/empty
	# As large as the pool. The file is sparse: none of its pages is ever allocated.
	truncate -s $pool /tmp/large
	refused_plan "no such initramfs" 'No such file or directory' $(image_of 3) initrd=/none
	refused_plan "an initramfs that is a folder" 'Invalid argument' $(image_of 3) initrd=/lib
	refused_plan "an empty initramfs" 'Invalid argument' $(image_of 3) initrd=/tmp/empty
	refused_plan "an initramfs that is too large" 'No space left on device' $(image_of 3) initrd=/tmp/large
	rm /tmp/large
	refused_plan "too many words" 'Invalid argument' $(image_of 3) $(words_of 3) $(seq 1 600)
	mk destroy 3
	step "plans: create 3, small" create_linux 1M
	refused_plan "a pool that is too small" 'No space left on device' $(image_of 3) $(words_of 3)
	mk destroy 3
	step "plans: create 3, large" create_linux $((mib - mib / 32))M
	refused_plan "no memory left for the image" 'Cannot allocate memory' $(image_of 3) $(words_of 3)
	step "plans: destroy 3" mk destroy 3
	step "plans: take, unload" take_and_unload
	refused_low
}

refused_plan() {
	local name=$1 error=$2
	shift 2
	refused "plans: $name" "$error" mk start 3 "$@"
}

take_and_unload() {
	mk take $one $two $three $four && unload
}

# Memory below 1 MiB: first none, then enough for one of two Linux kernels.
refused_low() {
	local half=$(((mib - 32) / 3))
	step "low memory: load without" insmod $module memory=$memory || return
	step "low memory: give, create" one_linux_each $half
	refused_plan "no low memory" 'Cannot allocate memory' $(image_of 3) $(words_of 3)
	step "low memory: destroy, take, unload" no_linux
	step "low memory: load with 64 KiB" insmod $module memory=$memory low=${low%+*}+64K || return
	step "low memory: give, create again" one_linux_each $half
	step "low memory: the first has it" mk start 1 $(image_of 3) $(words_of 3)
	refused_plan "no low memory left" 'Cannot allocate memory' $(image_of 3) $(words_of 3)
	step "low memory: kill the first" mk kill 1
	step "low memory: destroy, take, unload again" no_linux
}

one_linux_each() {
	mk give $three $four && mk create 1 cpus=$three pool=$1M && mk create 3 cpus=$four pool=$1M
}

no_linux() {
	mk destroy 1 && mk destroy 3 && mk take $three $four && unload
}
