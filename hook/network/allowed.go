package network

import "slices"

// Allowed is everybody whom some network allows, as of when it was read.
type Allowed struct {
	users, groups map[uint32]bool
	subordinates  subordinates
}

// ReadAllowed reads the definitions in dir, and which uids are subordinate to
// others. What cannot be read allows nobody.
func ReadAllowed(dir, subuids string) *Allowed {
	a := &Allowed{users: map[uint32]bool{0: true}, groups: map[uint32]bool{}, subordinates: readSubordinates(subuids)}
	all, _ := LoadAll(dir) // whoever asks for a network is told what is wrong with it
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

// Has reports whether some network allows the user, as [Definition.Allows] does: by
// the uid, or by a group, for which groups is called where it matters.
func (a *Allowed) Has(uid uint32, groups func() ([]uint32, error)) (bool, error) {
	if a.users[uid] || len(a.groups) == 0 || a.subordinates.has(uid) {
		return a.users[uid], nil
	}
	gids, err := groups()
	return slices.ContainsFunc(gids, func(g uint32) bool { return a.groups[g] }), err
}
