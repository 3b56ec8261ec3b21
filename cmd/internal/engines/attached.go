package engines

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/oci"
)

// Ours reports whether the container has an annotation of Lanyard.
func (c Container) Ours() bool { return oci.Ours(&specs.State{Annotations: c.Annotations}) }

// AttachedIn reports whether a running container is attached, by the records of all attachments.
// podman keeps the id of a container that it restarts, and the record of the run before may still
// exist: so the process must be the same.
func (c Container) AttachedIn(recs []hook.Attachment) bool {
	inode := netnsInode(c.Pid)
	return slices.ContainsFunc(recs, func(a hook.Attachment) bool {
		if a.State != hook.Attached {
			return false
		}
		if len(a.Containers) == 0 && inode != 0 && a.Netns.Inode == inode {
			return true // rebuilt from kernel state, without its containers
		}
		if c.Sandbox != "" && a.Pod.Sandbox == c.Sandbox {
			return true // the containers of a pod share the interface
		}
		return slices.ContainsFunc(a.Containers, func(k hook.Container) bool {
			if c.Pid == 0 {
				return k.ID == c.ID
			}
			return k.Process.Pid == c.Pid && netns.Alive(k.Process)
		})
	})
}

// Runs reports whether the container's process still exists.
func (c Container) Runs() bool { return netnsInode(c.Pid) != 0 }

// netnsInode returns the inode of a process's network namespace, 0 if it has ended.
func netnsInode(pid int) uint64 {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st) != nil {
		return 0
	}
	return st.Ino
}
