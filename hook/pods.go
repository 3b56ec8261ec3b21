package hook

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// The containers of a pod start and exit while its sandbox's network namespace stays,
// because the engine pins the namespace. A pod's attachment therefore lives while its
// interface is in that namespace, also while no container of the pod runs: in
// CrashLoopBackOff, or during a restart of the only container. containerd calls poststop
// at each exit.

// bucketPods finds a pod's attachments: namespace "/" name, NUL, ID.
const bucketPods = "pods"

// String is "namespace/name".
func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// ofPod reports whether the attachment is one of a pod's.
func (a *Attachment) ofPod() bool { return a.Pod.Sandbox != "" }

// inUse reports whether any of the attachment's containers runs.
func (a *Attachment) inUse() bool {
	return slices.ContainsFunc(a.Containers, func(c Container) bool { return link.Alive(c.Process) })
}

// finder reports whether a namespace lives. An error means that it is not known.
type finder func(Netns) (bool, error)

// find looks for one namespace.
func (l *Local) find(n Netns) (bool, error) {
	ns, err := l.Host.FindNetns(n.Inode, n.Cookie)
	if ns != nil {
		ns.Close()
	}
	return ns != nil, err
}

// findAll returns a finder for the namespaces of recs. It reads the host's processes and
// pins once, at the first call. A namespace that it does not find then stays gone.
func (l *Local) findAll(recs []Attachment) finder {
	living := sync.OnceValues(func() (map[[2]uint64]bool, error) {
		inodes, found := map[uint64]bool{}, map[[2]uint64]bool{}
		for _, a := range recs {
			inodes[a.Netns.Inode] = true
		}
		err := l.Host.EachNetnsOf(
			func(inode uint64) bool { return inodes[inode] },
			func(n *link.Netns) { found[[2]uint64{n.Inode, n.Cookie}] = true },
		)
		return found, err
	})
	return func(n Netns) (bool, error) {
		found, err := living()
		return found[[2]uint64{n.Inode, n.Cookie}], err
	}
}

// stands reports whether a pod's interface is still in the sandbox's namespace. In most
// cases one system call by the namespace's number (nsid) decides. The number alone is no
// proof, because the kernel gives it to another namespace later. The MAC is one, because
// a parent carries one macvlan with each MAC. An ipvlan has the MAC of its parent, and a
// container may change the MAC of a macvlan: then find decides.
//
// stands is false if a container deleted the interface: the next container then attaches
// again instead of joining an attachment without an interface.
func (l *Local) stands(a *Attachment, find finder) bool {
	if a.Number != nil && a.Index != 0 {
		i, err := l.Host.LinkIn(*a.Number, a.Index)
		switch {
		case err != nil:
			return true // unknown: the address may be in use
		case i == nil || i.ParentIndex != a.ParentIdx || i.Kind != "macvlan" && i.Kind != "ipvlan":
			return false
		case isMacvlanOf(i, a):
			return true
		}
	}
	lives, err := find(a.Netns)
	return err != nil || lives
}

// isMacvlanOf reports whether an interface that was found by its namespace's number is the
// attachment's.
func isMacvlanOf(i *link.Interface, a *Attachment) bool {
	return i.Kind == "macvlan" && i.ParentIndex == a.ParentIdx && verify.MACOf(i.MAC) == a.MAC
}

// keepForPod drops the last references to a pod's attachment, which over selects, and
// keeps the attachment if its interface stands: the next attempt joins it and has the same
// address. kept is false if the caller has to drop the references or the attachment.
func (l *Local) keepForPod(tx Tx, a Attachment, over func(Container) bool) (kept bool, err error) {
	left := slices.DeleteFunc(slices.Clone(a.Containers), over)
	if len(left) > 0 || a.State != Attached || !a.ofPod() || !l.stands(&a, l.find) {
		return false, nil
	}
	row := a
	a.Containers = left
	return true, write(tx, &row, &a)
}

// sweepPods takes back the attachments of pods whose sandbox is gone. containerd calls the
// last poststop of a pod while the sandbox lives, and calls no hook after that. Where no
// service sweeps, the poststop of another pod does.
func (l *Local) sweepPods(ctx context.Context) {
	_, err := l.sweep(ctx, false, func(a *Attachment) bool { return a.ofPod() && !a.inUse() })
	if err != nil {
		l.Log.Warn("sweep what earlier pods held: left to the next sweep", "err", err)
	}
}

// earlierSandboxes finds the attachments of a pod, including those of its earlier
// sandboxes. A pod that is created again under its name, as by a StatefulSet, needs the
// lease that goes by the name.
func earlierSandboxes(tx Tx, p Pod) ([]Attachment, error) {
	if p.Sandbox == "" || p.Name == "" {
		return nil, nil
	}
	return find(tx, bucketPods, p.String())
}

// needed reports whether a record that conflicts with this attempt is in use. A record of
// an earlier sandbox of the same pod is not, once its containers have exited, even if its
// namespace still lives: the kubelet stops a pod's sandbox before it creates another.
func (t *attempt) needed(a *Attachment, boot string) bool {
	earlier := a.State == Attached && a.ofPod() && a.Pod.Name != "" && !a.inUse() &&
		a.Pod.String() == t.r.Pod.String() && a.Pod.Sandbox != t.r.Pod.Sandbox
	return !earlier && t.live(a, boot)
}

// ReleasePod takes back the attachments of a pod that has no running container, and
// returns them. The pod is named "namespace/name", or by its sandbox's id. It is for
// namespaces that stay pinned after their pod is gone, which Sweep treats as alive. It
// returns an error, and takes nothing, while a container of the pod runs.
func (l *Local) ReleasePod(ctx context.Context, pod string) ([]Attachment, error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	is := func(a *Attachment) bool { return a.ofPod() && (a.Pod.String() == pod || a.Pod.Sandbox == pod) }
	busy := func(a *Attachment) bool { return a.inUse() || a.State != Attached && link.Alive(a.Hook) }
	if !slices.ContainsFunc(recs, func(a Attachment) bool { return is(&a) }) {
		return nil, fmt.Errorf("no pod %q has an attachment: \"lanyard ps\" lists those that have", pod)
	}
	for _, a := range recs {
		if is(&a) && busy(&a) {
			return nil, fmt.Errorf("pod %q: %q on network %q is in use by %s: stop the pod first", pod, a.Interface, a.Network, users([]Attachment{a}))
		}
	}
	return l.sweepThose(ctx, recs, false, is, busy)
}
