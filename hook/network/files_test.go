package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var byValue = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}

func TestCreateAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "networks.d")
	want := fullDefinition()
	if err := want.Create(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(dir, "web50.json"))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files: %v, want one", entries)
	}
	if err := want.Create(dir); !errors.Is(err, ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("files: %v, want one", entries)
	}
	want.Labels = nil
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(dir, want.Name); err != nil || got.Labels != nil {
		t.Errorf("after Save: %+v, %v", got, err)
	}
}

// The format of a file is stable, because administrators compare files with diff.
func TestFileMatchesExample(t *testing.T) {
	var got bytes.Buffer
	if err := encode(&got, fullDefinition()); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/web50.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

// Optional fields that are not set are not in the file.
func TestFileOmitsUnsetFields(t *testing.T) {
	small := &Definition{Name: "n", ID: "0123456789abcdef", Driver: DriverMacvlan, Parent: "eth0", Mode: ModeBridge,
		Subnets: []Subnet{{Subnet: netip.MustParsePrefix("10.0.0.0/8")}}}
	var got bytes.Buffer
	if err := encode(&got, small); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "name": "n",
  "id": "0123456789abcdef",
  "driver": "macvlan",
  "parent": "eth0",
  "mode": "bridge",
  "subnets": [
    {
      "subnet": "10.0.0.0/8"
    }
  ]
}
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	var buf bytes.Buffer
	if err := encode(&buf, fullDefinition()); err != nil {
		t.Fatal(err)
	}
	text := buf.String()
	replace := func(old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the file", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	for _, test := range []struct{ text, want string }{
		{replace(`"parent"`, `"parnet"`), `"parnet": is not a field; did you mean "parent"?`},
		{replace(`"parent"`, `"Parent"`), `"Parent": is not a field; did you mean "parent"?`},
		{replace(`"parent"`, `"colour"`), `"colour": is not a field`},
		{replace(`"gateway"`, `"gatway"`), `"subnets[0].gatway": is not a field; did you mean "gateway"?`},
		{replace(`"mtu": 1400`, `"mode": "vepa"`), `mode: occurs twice: remove one`},
		{replace(`"mtu": 1400`, `"mtu": "big"`), `mtu: a JSON string is not allowed here`},
		{replace(`"mtu": 1400`, `"mtu": 1.5`), `mtu: a JSON number 1.5 is not allowed here`},
		{replace(`"fd50::/64"`, `"fd50::/640"`), `subnets[1].subnet: `},
		{replace(`"192.168.50.1"`, `"192.168.50.256"`), `subnets[0].gateway: `},
		{replace(`"1.5s"`, `"soon"`), `deadline: "soon" is not a time: write it as 500ms or 1.5s`},
		{replace(`"1.5s"`, `1500`), `deadline: a JSON number is not allowed here`},
		{replace(`"web50"`, `"other"`), `name: "other" does not match the file's name`},
		{replace(`"mtu": 1400,`, `"mtu": 1400`), `line 46: invalid character '"' after object key:value pair`},
		{replace(`"192.168.50.0/24"`, `"192.168.50.0/33"`), `subnets[0].subnet: `},
		{text[:40], `line 3: unexpected end of JSON input`},
		{text + text, `line 69: invalid character '{' after top-level value`},
		{`[]`, `is not a JSON object`},
		{`null`, `is not a JSON object`},
		{``, `line 1: unexpected end of JSON input`},
		{`{"subnets":[null]}`, `subnets[0]: is not a JSON object`},
		{`{"subnets":{}}`, `subnets: a JSON object is not allowed here`},
		{strings.Repeat(" ", maxFile) + text, `is larger than 1048576 bytes`},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "web50.json")
		mustWrite(t, file, test.text)
		_, err := Load(dir, "web50")
		want := fmt.Sprintf("network file %s: %s", file, test.want)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func mustWrite(tb testing.TB, file, text string) {
	tb.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "web50.json"), "{}")
	_, err := Load(dir, "wbe50")
	if want := `network "wbe50": not defined in ` + dir + `; did you mean "web50"?`; !errors.Is(err, ErrNotExist) ||
		err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := Load(filepath.Join(dir, "nowhere"), "web50"); !errors.Is(err, ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	// A name that leads out of the directory is refused even if the file exists.
	mustWrite(t, filepath.Join(dir, "x.json"), "{}")
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(sub, "../x"); err == nil || !strings.Contains(err.Error(), `network name "../x"`) {
		t.Errorf("%v", err)
	}
	if err := Remove(sub, "../x"); err == nil || errors.Is(err, ErrNotExist) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.json")); err != nil {
		t.Error(err)
	}
}

// A FIFO of that name must not block a container's start.
func TestLoadFIFO(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "web50.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, "web50"); err == nil || !strings.HasSuffix(err.Error(), "is not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestLoadAll(t *testing.T) {
	dir := t.TempDir()
	if good, broken := LoadAll(filepath.Join(dir, "nowhere")); len(good)+len(broken) != 0 {
		t.Errorf("no directory: %v, %v", good, broken)
	}
	for _, name := range []string{"b", "a"} {
		d := fullDefinition()
		d.Name = name
		if err := d.Create(dir); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, filepath.Join(dir, "c.json"), "{")
	mustWrite(t, filepath.Join(dir, "d.json"), strings.Replace(mustRead(t, filepath.Join(dir, "a.json")), `"bridge"`,
		`"bride"`, 1))
	mustWrite(t, filepath.Join(dir, ".a.123"), "half-written")
	mustWrite(t, filepath.Join(dir, "a.json~"), "an editor's")
	good, broken := LoadAll(dir)
	if len(good) != 2 || good[0].Name != "a" || good[1].Name != "b" {
		t.Errorf("good: %v", good)
	}
	if len(broken) != 2 || !strings.Contains(broken[0].Error(), "c.json: line 1") ||
		!strings.Contains(broken[1].Error(), `d.json: mode: "bride"`) {
		t.Errorf("broken: %v", broken)
	}
}

func mustRead(tb testing.TB, file string) string {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	if err := fullDefinition().Create(dir); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir, "web50"); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir, "web50"); !errors.Is(err, ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
}

// Of many concurrent creations of a network on one parent, under the lock, one succeeds.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	var made atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			unlock, err := Lock(t.Context(), dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			d := fullDefinition()
			d.Name = fmt.Sprintf("net%d", i)
			others, _ := LoadAll(dir)
			if d.Conflicts(others) != nil {
				return
			}
			if err := d.Create(dir); err != nil {
				t.Error(err)
			}
			made.Add(1)
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d networks on one parent", made.Load())
	}
}

func FuzzDecode(f *testing.F) {
	var seed bytes.Buffer
	if err := encode(&seed, fullDefinition()); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Add([]byte(`{"subnets":[{"subnet":"10.0.0.0/8","aux-address":{"a":"10.0.0.1"}}]}`))
	f.Add([]byte(`{"name":null,"subnets":[null]}`))
	f.Add([]byte(`{"name":"a","name":"b"}`))
	f.Add([]byte(`[1,{"a":`))
	published := mustSchema(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := decode(text)
		if err != nil || d.Validate() != nil {
			return
		}
		// A valid definition stays the same when it is encoded and decoded again.
		var once, twice bytes.Buffer
		if err := encode(&once, d); err != nil {
			t.Fatal(err)
		}
		if err := validate(published, once.Bytes()); err != nil {
			t.Fatalf("the schema rejects what the code accepts: %v in\n%s", err, &once)
		}
		again, err := decode(once.Bytes())
		if err != nil {
			t.Fatalf("%v in\n%s", err, &once)
		}
		if err := again.Validate(); err != nil {
			t.Fatalf("%v in\n%s", err, &once)
		}
		if err := encode(&twice, again); err != nil {
			t.Fatal(err)
		}
		if once.String() != twice.String() {
			t.Fatal(cmp.Diff(once.String(), twice.String()))
		}
	})
}

// The next Lock removes what a killed writer left, and keeps the networks.
func TestLockRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	if err := fullDefinition().Create(dir); err != nil {
		t.Fatal(err)
	}
	left, err := writeTemp(dir, "web50", []byte("{"))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s still exists: %v", left, err)
	}
	if all, errs := LoadAll(dir); len(all) != 1 || len(errs) > 0 {
		t.Errorf("networks %v, %v", all, errs)
	}
}

// A wait for the lock ends with its context.
func TestLockGivesUp(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockPoll)
	defer cancel()
	if _, err := Lock(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the lock is held: %v", err)
	}
	unlock()
	if unlock, err = Lock(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// After a killed creation, a network is Begun until it is finished or removed.
func TestBegun(t *testing.T) {
	dir := t.TempDir()
	want := func(what string, begun bool) {
		t.Helper()
		d, err := Begun(dir, "web50")
		if err != nil || (d != nil) != begun {
			t.Errorf("%s: begun is %+v, %v", what, d, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want("nothing", false)
	must(Begin(dir, "web50"))
	want("killed before the definition is written", false)
	unlock, err := Lock(t.Context(), dir)
	must(err)
	unlock()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the directory has %v, %v", left, err)
	}
	must(Begin(dir, "web50"))
	must(fullDefinition().Create(dir))
	unlock, err = Lock(t.Context(), dir)
	must(err)
	unlock()
	want("killed after it", true)
	must(Finish(dir, "web50"))
	must(Finish(dir, "web50"))
	want("finished", false)
	must(Begin(dir, "web50"))
	must(Remove(dir, "web50"))
	want("removed", false)
	if _, err := os.Lstat(markerPath(dir, "web50")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the marker still exists: %v", err)
	}
}

func TestBegins(t *testing.T) {
	made := fullDefinition()
	made.HostAccess, made.HostAddresses = true, []netip.Addr{netip.MustParseAddr("192.168.50.2")}
	for what, c := range map[string]struct {
		edit func(*Definition)
		want bool
	}{
		"the same": {func(*Definition) {}, true},
		"created at another time": {func(d *Definition) { d.ID, d.Created, d.Managed = NewID(), time.Time{}, !d.Managed },
			true},
		"a chosen address": {func(d *Definition) { d.HostAddresses = nil }, true},
		"another requested address": {
			func(d *Definition) { d.HostAddresses = []netip.Addr{netip.MustParseAddr("192.168.50.3")} }, false},
		"another mode":   {func(d *Definition) { d.Mode = ModePrivate }, false},
		"another parent": {func(d *Definition) { d.Parent = "eth1" }, false},
		"fewer subnets":  {func(d *Definition) { d.Subnets = d.Subnets[:1] }, false},
	} {
		asked := fullDefinition()
		asked.HostAccess, asked.HostAddresses = true, made.HostAddresses
		c.edit(asked)
		if got := asked.Begins(made); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
