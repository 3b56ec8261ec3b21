package network

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAllows(t *testing.T) {
	subuids := filepath.Join(t.TempDir(), "subuid")
	if err := os.WriteFile(subuids, []byte("alice:100000:65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		users, groups []string
		uid           uint32
		gids          []uint32
		want, unknown bool
	}{
		{name: "no names", uid: 1000, gids: []uint32{1000}},
		{name: "root", want: true},
		{name: "user by number", users: []string{"1000"}, uid: 1000, want: true},
		{name: "another user", users: []string{"1001"}, uid: 1000},
		{name: "user by name", users: []string{"daemon"}, uid: 1, want: true},
		{name: "group by name", groups: []string{"adm"}, uid: 1000, gids: []uint32{7, 4}, want: true},
		{name: "a user with the number of a group", groups: []string{"1000"}, uid: 1000, gids: []uint32{7}},
		{name: "an unknown name", users: []string{"no-such-user"}, uid: 1000, unknown: true},
		{name: "an unknown and a known name", users: []string{"no-such-user", "1000"}, uid: 1000, want: true, unknown: true},
		{name: "an unknown group", groups: []string{"no-such-group"}, uid: 1000, gids: []uint32{0}, unknown: true},
		{name: "a subordinate uid by the user's group", groups: []string{"adm"}, uid: 100000, gids: []uint32{4},
			unknown: true},
		{name: "a subordinate uid that is named", users: []string{"165535"}, groups: []string{"adm"}, uid: 165535,
			gids: []uint32{4}, want: true},
		{name: "the uid after the subordinate uids by group", groups: []string{"adm"}, uid: 165536, gids: []uint32{4},
			want: true},
	} {
		d := &Definition{AllowUsers: c.users, AllowGroups: c.groups}
		if ok, err := d.allows(c.uid, c.gids, subuids); ok != c.want || (err != nil) != c.unknown {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
	}
}
