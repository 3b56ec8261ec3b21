package network

import "slices"

// Allowed is the set of users and groups that any network allows, at the time of reading.
type Allowed struct {
	users, groups map[uint32]bool
	subordinates  subordinates
}

// ReadAllowed reads the definitions in dir, and the subordinate uids in the file subuids. It
// skips definitions and names with errors.
func ReadAllowed(dir, subuids string) *Allowed {
	a := &Allowed{users: map[uint32]bool{0: true}, groups: map[uint32]bool{}, subordinates: readSubordinates(subuids)}
	all, _ := LoadAll(dir) // an attach to a broken network reports its error
	for _, d := range all {
		for _, name := range d.AllowUsers {
			if id, err := uidOf(name); err == nil {
				a.users[id] = true
			}
		}
		for _, name := range d.AllowGroups {
			if id, err := gidOf(name); err == nil {
				a.groups[id] = true
			}
		}
	}
	return a
}

// Has reports whether any network allows the user, by uid or group as [Definition.Allows]
// does. It calls groups only if the gids matter, and returns its error.
func (a *Allowed) Has(uid uint32, groups func() ([]uint32, error)) (bool, error) {
	if a.users[uid] || len(a.groups) == 0 || a.subordinates.has(uid) {
		return a.users[uid], nil
	}
	gids, err := groups()
	return slices.ContainsFunc(gids, func(g uint32) bool { return a.groups[g] }), err
}
