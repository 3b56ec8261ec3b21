package engines

import (
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
)

// TestAttachedIn checks which records show that a running container is attached. "Running" is
// this process.
func TestAttachedIn(t *testing.T) {
	self, err := netns.Self()
	if err != nil {
		t.Fatal(err)
	}
	podman := Container{ID: "c1", Pid: self.Pid}
	pod := Container{ID: "c1", Sandbox: "s1"}
	before := netns.Process{Pid: self.Pid, Start: self.Start - 1}
	record := func(state hook.State, containers ...hook.Container) hook.Attachment {
		return hook.Attachment{State: state, Containers: containers}
	}
	rebuilt := record(hook.Attached)
	rebuilt.Netns.Inode = netnsInode(self.Pid)
	otherNetns := record(hook.Attached)
	otherNetns.Netns.Inode = rebuilt.Netns.Inode + 1
	sandbox := record(hook.Attached, hook.Container{ID: "c2"})
	sandbox.Pod.Sandbox = "s1"
	for name, c := range map[string]struct {
		rec  hook.Attachment
		one  Container
		want bool
	}{
		"podman's process":           {record(hook.Attached, hook.Container{ID: "c1", Process: self}), podman, true},
		"an earlier run, same pid":   {record(hook.Attached, hook.Container{ID: "c1", Process: before}), podman, false},
		"an intent":                  {record(hook.Attaching, hook.Container{ID: "c1", Process: self}), podman, false},
		"rebuilt":                    {rebuilt, podman, true},
		"rebuilt, another namespace": {otherNetns, podman, false},
		"a container of a pod":       {record(hook.Attached, hook.Container{ID: "c1"}), pod, true},
		"another container":          {record(hook.Attached, hook.Container{ID: "c2"}), pod, false},
		"its sandbox":                {sandbox, pod, true},
	} {
		if got := c.one.AttachedIn([]hook.Attachment{c.rec}); got != c.want {
			t.Errorf("%s: attached is %v", name, got)
		}
	}
}
