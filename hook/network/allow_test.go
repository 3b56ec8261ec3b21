package network

import "testing"

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		name          string
		users, groups []string
		uid           uint32
		gids          []uint32
		want, unknown bool
	}{
		{name: "nobody named", uid: 1000, gids: []uint32{1000}},
		{name: "root", want: true},
		{name: "user by number", users: []string{"1000"}, uid: 1000, want: true},
		{name: "another user", users: []string{"1001"}, uid: 1000},
		{name: "user by name", users: []string{"daemon"}, uid: 1, want: true},
		{name: "group by name", groups: []string{"adm"}, uid: 1000, gids: []uint32{7, 4}, want: true},
		{name: "a group's number is no user's", groups: []string{"1000"}, uid: 1000, gids: []uint32{7}},
		{name: "an unknown name", users: []string{"no-such-user"}, uid: 1000, unknown: true},
		{name: "an unknown name beside a known", users: []string{"no-such-user", "1000"}, uid: 1000, want: true, unknown: true},
		{name: "an unknown group", groups: []string{"no-such-group"}, uid: 1000, gids: []uint32{0}, unknown: true},
	} {
		d := &Definition{AllowUsers: c.users, AllowGroups: c.groups}
		if ok, err := d.Allows(c.uid, c.gids); ok != c.want || (err != nil) != c.unknown {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
	}
}
