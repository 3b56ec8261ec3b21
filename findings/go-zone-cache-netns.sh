#!/bin/sh
# Go's package net resolves an IPv6 zone by the interfaces of another network namespace.
#
# Go 1.26. An address such as fe80::1%eth0 needs the ifindex of eth0. Package net lists the interfaces
# of the current namespace and keeps the list for the whole process for 60 seconds (ipv6ZoneCache in
# net/interface.go); it lists them again only for a name that is not in it. A thread that has entered
# another namespace (setns, unshare) gets the ifindex that the name had in the first one. There is no
# error if another interface has that ifindex here: the socket is connected to that interface's link,
# and packets leave there. Programs that work in containers' namespaces, where everything is called
# eth0, have this with each container after the first. A number as zone is no way out if an interface
# has that number as its name. What is right is a sockaddr with the ifindex.
#
# Output of the last run:
#   go1.26.8
#   first namespace: card is 20, fe80::1%card is connected on 20
#   second namespace: card is 30, fe80::1%card is connected on 20, which is other
#
# Run as root, with Go and iproute2. It exits with 1 if an answer is another one.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'M'
module zone

go 1.24

require golang.org/x/sys v0.38.0
M
cat >main.go <<'G'
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// enter creates a namespace with these links for the calling thread.
func enter(links ...string) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		log.Fatal(err)
	}
	for _, l := range append([]string{"link set lo up"}, links...) {
		if out, err := exec.Command("ip", strings.Fields(l)...).CombinedOutput(); err != nil {
			log.Fatalf("ip %s: %v: %s", l, err, out)
		}
	}
}

// connected returns the ifindex on which a socket to fe80::1%card is connected.
func connected() uint32 {
	c, err := net.Dial("udp6", "[fe80::1%card]:9")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	var zone uint32
	if err := raw.Control(func(fd uintptr) {
		to, err := unix.Getpeername(int(fd))
		if err != nil {
			log.Fatal(err)
		}
		zone = to.(*unix.SockaddrInet6).ZoneId
	}); err != nil {
		log.Fatal(err)
	}
	return zone
}

func main() {
	runtime.LockOSThread()
	fmt.Println(runtime.Version())
	enter("link add card index 20 type veth peer name peer", "link set peer up", "link set card up",
		"addr add fe80::2/64 dev card nodad")
	first := connected()
	fmt.Println("first namespace: card is 20, fe80::1%card is connected on", first)
	enter("link add card index 30 type veth peer name peer", "link set peer up", "link set card up",
		"addr add fe80::2/64 dev card nodad",
		"link add other index 20 type veth peer name otherpeer", "link set otherpeer up", "link set other up",
		"addr add fe80::3/64 dev other nodad")
	second := connected()
	fmt.Printf("second namespace: card is 30, fe80::1%%card is connected on %d, which is other\n", second)
	if first != 20 || second != 20 {
		os.Exit(1)
	}
}
G
go mod tidy 2>/dev/null
CGO_ENABLED=0 go build -o zone .
./zone
