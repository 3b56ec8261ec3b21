package network

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAllowed(t *testing.T) {
	dir := t.TempDir()
	subuids := filepath.Join(dir, "subuid")
	err := os.WriteFile(subuids, []byte("# alice's\nalice:100000:65536\nnonsense\nbob:x:1\n1001:4294967295:4294967295\n"),
		0o600)
	if err != nil {
		t.Fatal(err)
	}
	one, two := fullDefinition(), fullDefinition()
	one.Name, one.AllowUsers, one.AllowGroups = "one", []string{"daemon", "1000", "no-such-user"}, nil
	two.Name, two.AllowUsers, two.AllowGroups = "two", []string{"100007"}, []string{"adm", "no-such-group"}
	for _, d := range []*Definition{one, two} {
		if err := d.Create(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(pathOf(dir, "broken"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := ReadAllowed(dir, subuids)
	for _, c := range []struct {
		name string
		uid  uint32
		gids []uint32
		want bool
	}{
		{name: "root", want: true},
		{name: "by name", uid: 1, want: true},
		{name: "by number", uid: 1000, want: true},
		{name: "another user", uid: 1001, gids: []uint32{1000}},
		{name: "by group", uid: 1001, gids: []uint32{7, 4}, want: true},
		{name: "a subordinate uid by the user's group", uid: 100000, gids: []uint32{4}},
		{name: "the last subordinate uid", uid: 165535, gids: []uint32{4}},
		{name: "the uid after it", uid: 165536, gids: []uint32{4}, want: true},
		{name: "a subordinate uid that is named", uid: 100007, want: true},
	} {
		got, err := a.Has(c.uid, func() ([]uint32, error) { return c.gids, nil })
		if got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func TestAllowedWithoutDefinitions(t *testing.T) {
	a := ReadAllowed("/nonexistent", "/nonexistent")
	got, err := a.Has(1000, func() ([]uint32, error) { t.Error("groups are read without need"); return nil, nil })
	if got || err != nil {
		t.Errorf("%v, %v", got, err)
	}
}
