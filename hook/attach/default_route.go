package attach

import (
	"maps"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
)

// claimedDefaults returns the families in which an interface without a default-route setting leaves
// the default route alone: both if any interface of the request asks for the default routes.
// attachAll adds the families of default routes that an earlier interface has taken.
func claimedDefaults(r hook.Request) map[hook.Family]bool {
	requested := slices.ContainsFunc(r.Wants, func(w hook.Want) bool { return w.Default != nil && *w.Default })
	return map[hook.Family]bool{hook.IPv4: requested, hook.IPv6: requested}
}

// familiesWithoutDefault returns the families in which the interface gets no default route.
func (t *attempt) familiesWithoutDefault() map[hook.Family]bool {
	both := map[hook.Family]bool{hook.IPv4: true, hook.IPv6: true}
	switch requested := t.want.Default; {
	case t.clusterHasDefault():
		return both // the author of the pod cannot change that
	case requested == nil:
		return maps.Clone(t.noDefault)
	case *requested:
		return nil
	}
	return both
}
