package broker

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
)

// maxGroups is NGROUPS_MAX (linux/limits.h).
const maxGroups = 65536

// peerOf is who connected, as the kernel noted it then: what the process has
// become since, by running a set-user-ID program say, changes nothing. Nothing is
// read from /proc about the caller, so its pid, which may be another's by now, is
// for the log alone.
func peerOf(fd int) (*unix.Ucred, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	// What has no uid here must not look like one that has (from_kuid_munged).
	if err == nil && cred.Uid == overflowUID {
		err = errors.New("the caller's uid is not mapped here")
	}
	if err != nil {
		return nil, fmt.Errorf("find out who calls: %w", err)
	}
	return cred, nil
}

// callerOf adds to it the groups that it was in.
func callerOf(fd int, cred *unix.Ucred) (hook.Caller, error) {
	groups, err := groupsOf(fd)
	if err != nil {
		return hook.Caller{}, fmt.Errorf("find out what groups the caller is in: %w", err)
	}
	return hook.Caller{UID: cred.Uid, GIDs: append(groups, cred.Gid)}, nil
}

// overflowUID stands for uids that are not mapped (kernel/sys.c, DEFAULT_OVERFLOWUID).
const overflowUID = 65534

// groupsOf reads the groups that the caller was in when it connected
// (SO_PEERGROUPS, Linux 4.13).
func groupsOf(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno != unix.ERANGE || size/4 > maxGroups || int(size/4) <= len(groups):
			return nil, errno
		}
		groups = make([]uint32, size/4)
	}
}

// soPassRights is SO_PASSRIGHTS (asm-generic/socket.h, Linux 6.16).
const soPassRights = 83

// refuseRights tells the kernel that no descriptors are taken: who sends one is
// told EPERM. Closing one can hang for ever where a FUSE server wants it to.
// Below Linux 6.16 a message is read without room for control data, and the
// kernel drops what comes along.
func refuseRights(fd int) {
	// ENOPROTOOPT is all that can be said below 6.16, and then there is nothing to do.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, soPassRights, 0)
}
