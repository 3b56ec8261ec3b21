package attach

import (
	"context"
	"fmt"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/record"
)

// The containers of a pod start and exit while the network namespace of its sandbox stays,
// because the engine pins the namespace. Therefore a pod's attachment exists for as long as
// its interface is in that namespace, also while no container of the pod runs: in
// CrashLoopBackOff, or during a restart of the only container. containerd calls poststop at
// each exit.

// keepForPod removes the references that isDropped selects and keeps the attachment, if no reference
// remains and the interface exists: the next attempt joins it and has the same address. It does not
// keep the attachment if a removed reference was by path: the runtime has detached the interface then.
// kept is false if nothing was written; the caller has to drop the references.
func (l *Local) keepForPod(
	tx record.Tx, a hook.Attachment, isDropped func(hook.Container) bool,
) (kept bool, err error) {
	remaining := slices.DeleteFunc(slices.Clone(a.Containers), isDropped)
	ended := slices.ContainsFunc(a.Containers, func(c hook.Container) bool { return c.ByPath() && isDropped(c) })
	if len(remaining) > 0 || ended || a.State != hook.Attached || !a.OfPod() || !l.hasInterface(&a, l.hasNetns) {
		return false, nil
	}
	row := a
	a.Containers = remaining
	return true, record.Write(tx, &row, &a)
}

// sweepPods releases the attachments of pods without a sandbox. containerd calls the last
// poststop of a pod while the sandbox exists, and no hook after that. If no service sweeps,
// the poststop of another pod does.
func (l *Local) sweepPods(ctx context.Context) {
	_, err := l.SweepSelected(ctx, func(a *hook.Attachment) bool { return a.OfPod() && !a.InUse() })
	if err != nil {
		l.Log.Warn("could not release what earlier pods held: the next sweep tries again", "err", err)
	}
}

// ReleasePod releases the attachments of a pod that has no running container, and returns
// them. pod is "namespace/name", or the id of the sandbox. ReleasePod is for namespaces that
// stay pinned after their pod was deleted: Sweep takes them for those of running pods. It returns
// an error, and releases nothing, while a container of the pod runs.
func (l *Local) ReleasePod(ctx context.Context, pod string) ([]hook.Attachment, error) {
	recs, err := l.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	belongsToPod := func(a *hook.Attachment) bool { return a.OfPod() && (a.Pod.String() == pod || a.Pod.Sandbox == pod) }
	// Whether containers of a sandbox that was named by path run is unknown.
	busy := func(a *hook.Attachment) bool {
		return a.InUse() || a.ByPath() || a.State != hook.Attached && netns.Alive(a.Hook)
	}
	if !slices.ContainsFunc(recs, func(a hook.Attachment) bool { return belongsToPod(&a) }) {
		return nil, fmt.Errorf("no pod %q has an attachment: \"lanyard ps\" lists the attachments", pod)
	}
	for _, a := range recs {
		if belongsToPod(&a) && busy(&a) {
			return nil, fmt.Errorf("pod %q: %q on network %q is in use by %s: stop the pod first",
				pod, a.Interface, a.Network, record.Users([]hook.Attachment{a}))
		}
	}
	return l.sweepRecords(ctx, recs, belongsToPod, busy)
}
