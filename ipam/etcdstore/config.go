package etcdstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// Config says how to reach an etcd cluster. It is the content of leases.json.
type Config struct {
	// Endpoints are URLs of members: "https://10.0.0.1:2379".
	Endpoints []string `json:"endpoints"`
	// CA, Cert and Key are files in PEM form: the authority of the members' certificates (empty: the
	// system's), and this host's certificate with its key.
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// User and Password are for clusters with authentication.
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	// Prefix begins all keys. Empty: DefaultPrefix.
	Prefix string `json:"prefix,omitempty"`
	// TTL is the time from a host's last keepalive to the end of its leases. Empty: DefaultTTL.
	TTL string `json:"ttl,omitempty"`
}

// Defaults of a Config. etcd grants no lease below minTTL.
const (
	DefaultPrefix = "/lanyard/"
	DefaultTTL    = time.Minute
	minTTL        = 2 * time.Second
	maxTTL        = 24 * time.Hour
)

func (c Config) prefix() string {
	if c.Prefix == "" {
		return DefaultPrefix
	}
	return c.Prefix
}

// place is a digest of what decides in which cluster, and where in it, the leases are.
func (c Config) place() string {
	endpoints := slices.Sorted(slices.Values(c.Endpoints))
	sum := sha256.Sum256([]byte(strings.Join(append(endpoints, c.prefix()), "\x00")))
	return hex.EncodeToString(sum[:8])
}

func (c Config) ttl() time.Duration {
	if d, err := time.ParseDuration(c.TTL); err == nil {
		return d
	}
	return DefaultTTL
}

// Load reads a configuration. The file must not be readable for others, because it may have a
// password. Errors name the file and what to do.
func Load(path string) (c Config, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("it does not exist: write it, with the endpoints of the cluster (see \"lanyard leases --help\")")
	}
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return c, fmt.Errorf("mode %04o lets others read it: run \"chmod 600 %s\"", mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return c, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("is not as \"lanyard leases schema\" says: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("has more text after the first value: remove it")
	}
	return c, c.Validate()
}

// Validate returns an error of the form "field: reason" for an invalid configuration, or nil.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("endpoints: is empty: list the members' URLs, such as \"https://10.0.0.1:2379\"")
	}
	for i, e := range c.Endpoints {
		if err := validEndpoint(e); err != nil {
			return fmt.Errorf("endpoints[%d]: %w", i, err)
		}
		if secure(e) != secure(c.Endpoints[0]) {
			return fmt.Errorf("endpoints[%d]: %q and %q differ in TLS: use it for all members, or for none",
				i, e, c.Endpoints[0])
		}
	}
	switch {
	case (c.CA != "" || c.Cert != "") && !secure(c.Endpoints[0]):
		return fmt.Errorf("endpoints: %q does not use TLS, so that ca and cert have no effect: write https, or omit them",
			c.Endpoints[0])
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("cert, key: one needs the other: give both, or none")
	case (c.User == "") != (c.Password == ""):
		return errors.New("user, password: one needs the other: give both, or none")
	case c.Prefix != "" && (!strings.HasPrefix(c.Prefix, "/") || !strings.HasSuffix(c.Prefix, "/")):
		return fmt.Errorf("prefix: %q does not begin and end with \"/\"", c.Prefix)
	}
	if c.TTL == "" {
		return nil
	}
	d, err := time.ParseDuration(c.TTL)
	if err != nil {
		return fmt.Errorf("ttl: %q is not a time: write it as 60s or 5m", c.TTL)
	}
	if d < minTTL || d > maxTTL || d%time.Second != 0 {
		return fmt.Errorf("ttl: %s is not a number of seconds from %s to %s", c.TTL, minTTL, maxTTL)
	}
	return nil
}

func validEndpoint(e string) error {
	u, err := url.Parse(e)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "http", "https":
		if u.Port() == "" || u.Hostname() == "" || u.Path != "" {
			return fmt.Errorf("%q is not a URL such as \"https://10.0.0.1:2379\"", e)
		}
	case "unix", "unixs":
		if u.Path == "" {
			return fmt.Errorf("%q names no socket", e)
		}
	default:
		return fmt.Errorf("%q is not a URL such as \"https://10.0.0.1:2379\"", e)
	}
	return nil
}

// secure reports whether an endpoint uses TLS.
func secure(endpoint string) bool {
	return strings.HasPrefix(endpoint, "https:") || strings.HasPrefix(endpoint, "unixs:")
}
