# SPDX-License-Identifier: MIT OR Apache-2.0
# Functions for the scenarios. A record is a line with a JSON object. Records are written to the second serial line, where
# xtask reads them.

records=/dev/ttyS1
device=/dev/mk_ipi
traffic=/sys/kernel/debug/mk_ipi/traffic
all_ok=true

# option NAME: the value of mk_ipi.NAME= on the kernel's command line.
option() {
	tr ' ' '\n' < /proc/cmdline | sed -n "s/^mk_ipi\.$1=//p"
}

record() {
	printf '@%s\n' "$1" > $records
}

# json TEXT: prints TEXT in a form that can stand in a JSON string.
json() {
	printf '%s' "$1" | tr '"\\\n\t\r' "'/   " | tr -cd '\40-\176' | cut -c1-300
}

pass() {
	record "{\"step\":{\"name\":\"$(json "$1")\",\"ok\":true,\"detail\":\"$(json "$2")\"}}"
}

fail() {
	all_ok=false
	record "{\"step\":{\"name\":\"$(json "$1")\",\"ok\":false,\"detail\":\"$(json "$2")\"}}"
}

# step NAME COMMAND...: runs the command, which must succeed, and records the result.
step() {
	local step_name=$1 step_said
	shift
	if step_said=$("$@" 2>&1); then
		pass "$step_name" "$step_said"
	else
		fail "$step_name" "$step_said"
		return 1
	fi
}

# refused NAME ERROR COMMAND...: runs the command, which must fail with this error, and records the result. The module must
# write the reason to the kernel's log.
refused() {
	local step_name=$1 wanted=$2 step_said words
	shift 2
	dmesg -c > /dev/null
	if step_said=$("$@" 2>&1); then
		fail "$step_name" "the command was accepted: $*"
		return
	fi
	words=$(dmesg -r | sed -n 's/^<3>\[[^]]*\] *\(mk_ipi: .*\)/\1/p' | tail -n 1)
	case $step_said in
	*"$wanted"*) [ -n "$words" ] && pass "$step_name" "$wanted: $words" || fail "$step_name" "no reason in the log: $step_said" ;;
	*) fail "$step_name" "not $wanted: $step_said; $words" ;;
	esac
}

# refused_by_linux NAME ERROR COMMAND...: as refused, but Linux itself refuses the command, so the module writes no reason.
refused_by_linux() {
	local step_name=$1 wanted=$2 step_said
	shift 2
	if step_said=$("$@" 2>&1); then
		fail "$step_name" "the command was accepted: $*"
		return
	fi
	case $step_said in
	*"$wanted"*) pass "$step_name" "$wanted" ;;
	*) fail "$step_name" "not $wanted: $step_said" ;;
	esac
}

# put FILE TEXT: writes TEXT to FILE in one write. If it fails, cat prints the error.
put() {
	printf '%s' "$2" | cat > "$1"
}

# mk WORD...: gives the module the command that consists of these words.
mk() {
	put $device "$*"
}

# image_of ID: the image of a kernel. Kernel 1 is a bare-metal kernel in Rust, kernel 2 is one in C, and kernel 3 is the same
# Linux as this one.
image_of() {
	case $1 in
	3) echo /lib/mk_ipi/vmlinux ;;
	*) echo /lib/mk_ipi/k$1.elf ;;
	esac
}

lang_of() {
	case $1 in
	1) echo rust ;;
	2) echo c ;;
	3) echo linux ;;
	esac
}

# port_of ID: the I/O port to which a kernel writes its output. The port of kernel 2 is not a UART: it only accepts bytes.
port_of() {
	case $1 in
	1) echo 0x2e8 ;;
	2) echo 0x220 ;;
	3) echo 0x3e8 ;;
	esac
}

# words_of ID: the words of the command `start` that are added to the kernel's command line.
words_of() {
	case $1 in
	1) echo "mk_ipi.run=serve mk_ipi.console=$(port_of 1) mk_ipi.ip=10.77.1.2/24" ;;
	3) echo "initrd=/lib/mk_ipi/guest.cpio earlyprintk=serial,$(port_of 3),115200,keep console=ttyprintk mk_ipi.ip=10.77.3.2/24" ;;
	*) echo "mk_ipi.run=serve mk_ipi.console=$(port_of $1)" ;;
	esac
}

# start ID [WORD...]: starts a kernel, with WORD added to its command line.
start() {
	local id=$1
	shift
	mk start $id $(image_of $id) $(words_of $id) "$@"
}

# kernels ID...: records this kernel and the kernels ID.
kernels() {
	local id
	record "{\"kernel\":{\"id\":0,\"lang\":\"linux\",\"cpu\":0,\"life\":1}}"
	for id in "$@"; do
		tell_life $id
	done
}

# tell_life ID: records that a life of the kernel has begun.
tell_life() {
	local cpus=$(instance $1 4)
	record "{\"kernel\":{\"id\":$1,\"lang\":\"$(lang_of $1)\",\"cpu\":${cpus%%,*},\"life\":$(instance $1 3)}}"
}

# instance ID COLUMN: prints a column of the instance's line in /dev/mk_ipi. 2: phase, 3: incarnation, 4: CPUs, 5: region,
# 6: state of the link.
instance() {
	awk -v id="$1" -v column="$2" '$1 == id { print $column }' $device
}

# await SECONDS COMMAND...: repeats the command until it succeeds. Fails if it has not succeeded after SECONDS.
await() {
	local tries=$(($1 * 20))
	shift
	while ! "$@"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.05
	done
}

is() {
	[ "$1" = "$2" ]
}

# under_way TOTAL: true if this kernel has done more than an eighth of the TOTAL messages of the run, but not all. TOTAL is
# compared, because at the beginning of a run the file can still show the last run.
under_way() {
	sed -n 's/.*"progress".*"done":\([0-9]*\),"total":\([0-9]*\).*/\1 \2/p' $traffic |
		awk -v total=$1 '{ is = $2 == total && $1 * 8 > total && $1 < total } END { exit !is }'
}

# stream_to MESSAGES ID...: begins a run in the background. Returns when a part of the messages was sent, or the run has ended.
stream_to() {
	local tries=2400 total=$(($1 * ($# - 1) * 2)) messages=$1
	shift
	put $traffic "run $messages 0 $*" &
	run_pid=$!
	while ! under_way $total && kill -0 $run_pid 2> /dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { echo "the streams did not begin within 120 s"; return 1; }
		sleep 0.05
	done
}

# True if a run is in progress.
streaming() {
	grep -q progress $traffic
}

# run_traffic MESSAGES PINGS ID...: does a run of the traffic test, and records its progress.
run_traffic() {
	put $traffic "run $*" &
	run_pid=$!
	watch_traffic
}

# Waits for the end of the run in the background, and records its progress. Returns the result of the run.
watch_traffic() {
	local turns=0
	while kill -0 $run_pid 2> /dev/null; do
		sleep 0.1
		turns=$((turns + 1))
		[ $((turns % 10)) -ne 0 ] || grep progress $traffic | sed 's/^/@/' > $records
	done
	wait $run_pid
}

# clean COUNT ID...: true if in the last run each of these kernels received COUNT messages from each other one, undamaged and
# in order.
clean() {
	local count=$1 from to
	shift
	for from in "$@"; do
		for to in "$@"; do
			[ $from = $to ] || grep '"received"' $traffic | grep "\"from\":$from,\"to\":$to," |
				grep -q "\"received\":$count,\"lost\":0,\"torn\":0,\"doubled\":0,\"disordered\":0" || {
				echo "messages are missing or wrong: $(grep "\"from\":$from,\"to\":$to," $traffic)"
				return 1
			}
		done
	done
}

# accounted DEAD ID...: true if in the last run no message was lost, in either direction between the killed kernel DEAD and
# each kernel ID. In each stream to DEAD, at most one message may be in doubt. Prints the results of the streams, and the
# numbers of messages in doubt on separate lines.
accounted() {
	local dead=$1 other ends
	shift
	for other in "$@"; do
		for ends in "\"from\":$other,\"to\":$dead," "\"from\":$dead,\"to\":$other,"; do
			grep '"received"' $traffic | grep "$ends" | tell_received | grep ' 0 lost, 0 torn, 0 doubled, 0 late$' || {
				echo "messages were lost or wrong: $(grep "$ends" $traffic)"
				return 1
			}
		done
		grep '"sent"' $traffic | grep "\"from\":$other,\"to\":$dead," | tell_in_doubt | grep ' [01] in doubt$' || {
			echo "more than one message is in doubt: $(grep '"sent"' $traffic)"
			return 1
		}
	done
}

# Converts result lines about received messages to a shorter text.
tell_received() {
	sed 's/.*"from":\([0-9]*\),"to":\([0-9]*\),.*"received":\([0-9]*\),"lost":\([0-9]*\),"torn":\([0-9]*\),"doubled":\([0-9]*\),"disordered":\([0-9]*\).*/\1 to \2: \3 came, \4 lost, \5 torn, \6 doubled, \7 late/'
}

# Converts result lines about sent messages to a short text about the messages in doubt.
tell_in_doubt() {
	sed 's/.*"from":\([0-9]*\),"to":\([0-9]*\),.*"in_doubt":\([0-9]*\),.*/\1 to \2: \3 in doubt/'
}
