#!/bin/sh
# An accepted Unix socket belongs to the network namespace of the client, not of the server.
#
# Linux 6.18. A server listens on a Unix socket in a file system, and a client in another network
# namespace connects. unix_stream_connect in net/unix/af_unix.c makes the server's end of the
# connection with the namespace of the client's socket. SO_NETNS_COOKIE and SIOCGSKNS of the
# accepted socket, in the server, therefore name the client's namespace, as it was when the client
# made its socket, even if the client has entered another one since. Nothing of it comes from the
# client's words or from /proc.
#
# Output of the last run:
#   Linux 6.18.44
#   the accepted socket has the cookie of the client's namespace, of the time of socket(2)
#   SIOCGSKNS gives the same namespace
#
# Run as root, with a C compiler. It exits with 1 if a cookie or an inode is another one.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/whose.c" <<'C'
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static uint64_t cookie(int fd)
{
	uint64_t c = 0;
	socklen_t n = sizeof(c);

	getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &c, &n);
	return c;
}

/* What the client finds of itself, for the comparison only. */
struct client {
	uint64_t cookie;
	ino_t inode;
};

int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct client c;
	struct stat st;
	int to_server[2], l, s, ns, wrong;
	char done;

	if (argc != 2 || pipe(to_server))
		return 2;
	strncpy(a.sun_path, argv[1], sizeof(a.sun_path) - 1);
	l = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(l, (struct sockaddr *)&a, sizeof(a)) || listen(l, 1))
		return 2;
	if (fork() == 0) {
		if (unshare(CLONE_NEWNET))
			_exit(2);
		s = socket(AF_UNIX, SOCK_STREAM, 0);
		c.cookie = cookie(s);
		stat("/proc/self/ns/net", &st);
		c.inode = st.st_ino;
		/* The socket stays where it was made. */
		if (unshare(CLONE_NEWNET) || connect(s, (struct sockaddr *)&a, sizeof(a)))
			_exit(2);
		if (write(to_server[1], &c, sizeof(c)) != sizeof(c))
			_exit(2);
		_exit(read(s, &done, 1) != 0);
	}
	s = accept(l, NULL, NULL);
	if (s < 0 || read(to_server[0], &c, sizeof(c)) != sizeof(c))
		return 2;
	ns = ioctl(s, SIOCGSKNS);
	if (ns < 0 || fstat(ns, &st))
		return 2;
	if (cookie(l) == c.cookie) {
		puts("the two are in one namespace: nothing is shown");
		return 1;
	}
	printf("the accepted socket has the cookie of %s\n", cookie(s) == c.cookie ?
	       "the client's namespace, of the time of socket(2)" : "another namespace");
	printf("SIOCGSKNS gives %s\n", st.st_ino == c.inode ? "the same namespace" : "another namespace");
	wrong = cookie(s) != c.cookie || st.st_ino != c.inode;
	close(s);
	wait(NULL);
	return wrong;
}
C
cc -O2 -Wall -Wextra -o "$dir/whose" "$dir/whose.c"
echo "Linux $(uname -r | cut -d- -f1)"
"$dir/whose" "$dir/socket"
