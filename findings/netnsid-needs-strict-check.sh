#!/bin/sh
# IFA_TARGET_NETNSID is ignored on sockets without strict checks, and the dump has other addresses.
#
# Linux 6.18. A dump of addresses (RTM_GETADDR) may name another network namespace by its id, with
# the attribute IFA_TARGET_NETNSID (4.20). The kernel reads attributes and the ifindex of this
# request only if the socket has NETLINK_GET_STRICT_CHK (inet_dump_ifaddr in net/ipv4/devinet.c).
# Without that option there is no error: the answer has the addresses of the caller's own namespace,
# of all its interfaces. A program that asks whether an address is in use in a container gets the
# answer for the host. The same request for links (RTM_GETLINK, IFLA_TARGET_NETNSID) needs no option:
# rtnl_getlink always parses it. Netlink libraries leave the option off.
#
# Output of the last run:
#   Linux 6.18.44
#   links, default socket: the other namespace
#   addresses, default socket: this namespace
#   addresses, strict socket: the other namespace
#
# Run as root, with a C compiler and iproute2. It exits with 1 if an answer is another one.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/dump.c" <<'C'
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

static const char *here = "203.0.113.9", *there = "198.51.100.7";

/* Whether the answers contain the bytes. */
static int ask(int strict, int type, int flags, int attr, int id, const void *bytes, size_t length)
{
	struct { struct nlmsghdr h; char body[16]; struct rtattr a; int id; } m;
	int one = 1, found = 0, done = 0, s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	size_t body = type == RTM_GETADDR ? sizeof(struct ifaddrmsg) : sizeof(struct ifinfomsg);
	struct rtattr *a = (struct rtattr *)(m.body + body);
	static char buf[1 << 16];
	ssize_t n;

	if (strict && setsockopt(s, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one)))
		exit(2);
	memset(&m, 0, sizeof(m));
	m.h.nlmsg_type = type;
	m.h.nlmsg_flags = NLM_F_REQUEST | flags;
	m.h.nlmsg_len = sizeof(m.h) + body + RTA_LENGTH(sizeof(id));
	if (type == RTM_GETADDR)
		((struct ifaddrmsg *)m.body)->ifa_family = AF_INET;
	else
		((struct ifinfomsg *)m.body)->ifi_index = 2;
	a->rta_type = attr;
	a->rta_len = RTA_LENGTH(sizeof(id));
	memcpy(RTA_DATA(a), &id, sizeof(id));
	if (send(s, &m, m.h.nlmsg_len, 0) < 0)
		exit(2);
	while (!done && (n = recv(s, buf, sizeof(buf), 0)) > 0) {
		struct nlmsghdr *h;

		for (h = (struct nlmsghdr *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_ERROR) {
				fprintf(stderr, "netlink error %d\n", ((struct nlmsgerr *)NLMSG_DATA(h))->error);
				exit(2);
			}
			done |= h->nlmsg_type == NLMSG_DONE || !(flags & NLM_F_DUMP);
			found |= memmem(h, h->nlmsg_len, bytes, length) != NULL;
		}
	}
	close(s);
	return found;
}

static int addresses(int strict, int id, const char *which)
{
	struct in_addr a;

	inet_pton(AF_INET, which, &a);
	return ask(strict, RTM_GETADDR, NLM_F_DUMP, IFA_TARGET_NETNSID, id, &a, sizeof(a));
}

static const char *where(int other, int own)
{
	return other && !own ? "the other namespace" : own && !other ? "this namespace" : "something else";
}

int main(void)
{
	int ready[2], end[2], links[2], id = 7;
	char command[128], c;
	pid_t child;

	if (unshare(CLONE_NEWNET) || system("ip link set lo up && ip link add near0 type veth peer name near1") ||
	    pipe(ready) || pipe(end))
		return 2;
	snprintf(command, sizeof(command), "ip addr add %s/32 dev lo", here);
	if (system(command))
		return 2;
	child = fork();
	if (child == 0) {
		snprintf(command, sizeof(command), "ip addr add %s/32 dev lo", there);
		if (unshare(CLONE_NEWNET) || system("ip link set lo up && ip link add far0 type veth peer name far1") ||
		    system(command) || write(ready[1], "x", 1) != 1)
			_exit(2);
		_exit(read(end[0], &c, 1) != 1);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		return 2;
	{ /* "ip netns set" takes names only, so the request is made here. */
		struct { struct nlmsghdr h; struct rtgenmsg g; char pad[3]; struct rtattr a; int v; struct rtattr b; int w; } m;
		int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

		memset(&m, 0, sizeof(m));
		m.h.nlmsg_len = sizeof(m);
		m.h.nlmsg_type = RTM_NEWNSID;
		m.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
		m.a.rta_len = m.b.rta_len = RTA_LENGTH(4);
		m.a.rta_type = 1; /* NETNSA_NSID */
		m.v = id;
		m.b.rta_type = 2; /* NETNSA_PID */
		m.w = child;
		if (send(s, &m, sizeof(m), 0) < 0 || recv(s, &m, sizeof(m), 0) < 0)
			return 2;
		close(s);
	}
	links[0] = ask(0, RTM_GETLINK, 0, IFLA_TARGET_NETNSID, id, "far1", 5);
	links[1] = ask(0, RTM_GETLINK, 0, IFLA_TARGET_NETNSID, id, "near1", 6);
	const char *l = where(links[0], links[1]);
	const char *a = where(addresses(0, id, there), addresses(0, id, here));
	const char *b = where(addresses(1, id, there), addresses(1, id, here));

	printf("links, default socket: %s\naddresses, default socket: %s\naddresses, strict socket: %s\n", l, a, b);
	if (write(end[1], "x", 1) != 1)
		return 2;
	wait(NULL);
	return strcmp(l, "the other namespace") || strcmp(a, "this namespace") || strcmp(b, "the other namespace");
}
C
cc -O2 -Wall -Wextra -o "$dir/dump" "$dir/dump.c"
echo "Linux $(uname -r | cut -d- -f1)"
"$dir/dump"
