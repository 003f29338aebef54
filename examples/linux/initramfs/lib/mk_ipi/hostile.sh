# SPDX-License-Identifier: MIT OR Apache-2.0
# Kernel 1 breaks the rules (examples/bare-metal/src/hostile.rs). Neither this Linux nor the other kernels may be
# harmed.

hostile() {
	local seed=$(od -A n -N 4 -t u4 /dev/urandom)
	seed=$((seed))
	step "hostile: kernel 1 sends noise, seed $seed" begin_hostile noise:$seed
	cat /dev/ttyMK1 > /dev/null 2>&1 &
	local reader=$!
	step "hostile: its frames are found bad" await 60 errors_of_1 200
	step "hostile: any calls to its device" talk fuzz /dev/mk_ipi_peer1 3
	step "hostile: its interface goes down and up" down_and_up_1
	beside_it
	kill $reader
	step "hostile: after all that, more are found bad" await 60 errors_of_1 400
	step "hostile: kernel 1 as it should be" revive_1
	step "hostile: kernel 1 takes no message" begin_hostile deaf
	step "hostile: it answers nothing" await 30 no_answer
	step "hostile: its lane is full" lane_is_full
	step "hostile: its interface goes down at once" timeout 10 ip link set mk1 down
	beside_it
	ip link set mk1 up
	step "hostile: kernel 1 as it should be again" revive_1
}

# Starts kernel 1 anew. It breaks the rules in the given way.
begin_hostile() {
	mk kill 1 && start 1 mk_ipi.hostile=$1 && await 20 is_up 1 && tell_life 1
}

errors_of_1() {
	local errors=$(cat /sys/class/net/mk1/statistics/rx_errors)
	echo "$errors errors"
	[ $errors -ge $1 ]
}

down_and_up_1() {
	timeout 10 ip link set mk1 down && timeout 10 ip link set mk1 up
}

# What goes on with the others meanwhile.
beside_it() {
	step "hostile: ping 3 meanwhile" pings 3 56 20 -i 0.05
	step "hostile: messages to 3 meanwhile" talk rounds /dev/mk_ipi_peer3 7 200
	step "hostile: traffic with 2 meanwhile" whole_traffic 2
}

no_answer() {
	! ping -c 1 -W 1 $(ip_of 1) > /dev/null
}

# Sends message after message. The one for which there is no room gives an error, and no program waits for it.
lane_is_full() {
	local n=0
	while mk send 1 0x300 $(printf '%0200d' 0) 2> /tmp/full; do
		n=$((n + 1))
		[ $n -lt 10000 ] || { echo "$n messages, and there is space"; return 1; }
	done
	echo "after $n messages: $(cat /tmp/full)"
	grep -q 'No space left' /tmp/full
}
