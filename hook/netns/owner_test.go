package netns

import (
	"slices"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
)

func TestOwners(t *testing.T) {
	h := mustHost(t)
	for _, c := range []struct {
		name string
		pid  int
		want []uint32
	}{
		{"rootful", testenv.NewContainer(t).Pid, []uint32{0}},
		{"rootless", testenv.NewRootless(t, 1000).Pid, []uint32{1000, 0}},
		{"nested in rootless", testenv.NewRootless(t, 1000, testenv.Unshare...).Pid, []uint32{1000, 1000, 0}},
	} {
		owners, err := mustOpen(t, h, c.pid).Owners()
		if err != nil || !slices.Equal(owners, c.want) {
			t.Errorf("%s: owners are %v, %v; want %v", c.name, owners, err, c.want)
		}
	}
}

func TestPrivileged(t *testing.T) {
	if ok, err := Privileged(); !ok || err != nil {
		t.Errorf("root in its own network namespace: %v, %v", ok, err)
	}
}

func TestOwnerOf(t *testing.T) {
	for _, c := range []struct {
		owners   []uint32
		uid      uint32
		rootless bool
	}{
		{nil, 0, false},
		{[]uint32{0}, 0, false},
		{[]uint32{1000, 0}, 1000, true},
		{[]uint32{100000, 1000, 0}, 1000, true}, // a container that a subordinate uid made
		{[]uint32{1001, 0, 0}, 0, true},         // below a container of root's with a user namespace
	} {
		if uid, rootless := OwnerOf(c.owners); uid != c.uid || rootless != c.rootless {
			t.Errorf("%v: got %d, %t", c.owners, uid, rootless)
		}
	}
}
