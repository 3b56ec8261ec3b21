package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
)

// find gives the attachments that an id means: a container's, an attachment's,
// or the beginning of one that no other begins with; or a pod's NAMESPACE/NAME. A
// container on several networks has several.
func find(recs []hook.Attachment, id string) ([]hook.Attachment, error) {
	if found := held(recs, id); len(found) > 0 {
		return found, nil
	}
	var candidates []string
	for _, a := range recs {
		for _, known := range append(ids(a), a.ID.String()) {
			if strings.HasPrefix(known, id) && id != "" {
				candidates = append(candidates, known)
			}
		}
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	switch len(candidates) {
	case 0:
		return nil, fmt.Errorf("no container or attachment %q: \"lanyard ps\" lists those there are", id)
	case 1:
		return held(recs, candidates[0]), nil
	}
	return nil, fmt.Errorf("%q is the beginning of %s: write more of it", id, some(candidates))
}

// held gives the attachments that have exactly this id.
func held(recs []hook.Attachment, id string) (found []hook.Attachment) {
	for _, a := range recs {
		if a.ID.String() == id || slices.Contains(ids(a), id) || a.Pod.Sandbox != "" && a.Pod.String() == id {
			found = append(found, a)
		}
	}
	return found
}

// ids are those of an attachment's containers; none where the records were lost
// and it was found again by its frames.
func ids(a hook.Attachment) []string {
	list := make([]string, len(a.Containers))
	for i, c := range a.Containers {
		list[i] = c.ID
	}
	return list
}

// some names a few of many.
func some(words []string) string {
	const most = 5
	more := ""
	if len(words) > most {
		more = fmt.Sprintf(" and %d more", len(words)-most)
		words = words[:most]
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return strings.Join(quoted, ", ") + more
}

// abbreviate shortens an id as podman and docker list it: 64 hexadecimal digits
// to 12. A name that somebody chose stays whole.
func abbreviate(id string, whole bool) string {
	if whole || len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return id
	}
	return id[:12]
}
