package record

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
)

// Users returns the sorted names of the containers of attachments, separated by ", ": container
// ids, or the pod's name, or the attachment's id if it has neither.
func Users(held []hook.Attachment) string {
	var names []string
	for _, a := range held {
		for _, c := range a.Containers {
			names = append(names, fmt.Sprintf("container %q", c.ID))
		}
		switch {
		case len(a.Containers) > 0:
		case a.OfPod():
			names = append(names, fmt.Sprintf("pod %q", a.Pod.String()))
		default:
			names = append(names, fmt.Sprintf("attachment %s", a.ID))
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
