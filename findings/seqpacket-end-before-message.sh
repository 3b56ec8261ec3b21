#!/bin/sh
# A Unix socket of type SOCK_SEQPACKET can report its end before the last message.
#
# Linux 6.18. A peer sends one message and closes. A reader polls with a non-blocking recv(2). Now
# and then the reader gets 0, the end, and the next recv(2) returns the message.
# unix_dgram_recvmsg in net/unix/af_unix.c finds the queue empty, and checks for the end afterwards:
# a peer that sends and closes in between has its message in the queue by then. A reader with a
# non-blocking socket, such as every Go program, has to read once more after an end.
#
# Output of the last run:
#   Linux 6.18.44
#   3 of 61975 rounds had the end before the message, 3 had the message after it
#
# Run with a C compiler. It exits with 1 if no round within 60 seconds has an end before the
# message, or if a message is lost.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/race.c" <<'C'
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int ends[2];
static pthread_barrier_t turn;

static void *peer(void *unused)
{
	for (;;) {
		pthread_barrier_wait(&turn);
		send(ends[1], "reply", 5, MSG_NOSIGNAL);
		close(ends[1]);
		pthread_barrier_wait(&turn);
	}
	return unused;
}

int main(void)
{
	long rounds = 0, early = 0, after = 0;
	time_t deadline = time(NULL) + 60;
	pthread_t t;

	pthread_barrier_init(&turn, NULL, 2);
	pthread_create(&t, NULL, peer, NULL);
	for (; early < 3 && time(NULL) < deadline; rounds++) {
		char b[8];
		ssize_t n;

		if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends))
			return 2;
		pthread_barrier_wait(&turn);
		do
			n = recv(ends[0], b, sizeof(b), MSG_DONTWAIT);
		while (n < 0 && errno == EAGAIN);
		if (n == 0) {
			early++;
			after += recv(ends[0], b, sizeof(b), MSG_DONTWAIT) == 5;
		}
		pthread_barrier_wait(&turn);
		close(ends[0]);
	}
	printf("%ld of %ld rounds had the end before the message, %ld had the message after it\n",
	       early, rounds, after);
	return early == 0 || after != early;
}
C
uname -sr | sed 's/-.*//'
cc -O2 -o "$dir/race" "$dir/race.c" -lpthread
"$dir/race"
