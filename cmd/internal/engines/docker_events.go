package engines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Docker is a dockerd of this host.
type Docker struct {
	Spec    string // the CDI specification
	Socket  string
	Pidfile string // exists while dockerd runs
}

// HostDocker is the dockerd that Debian and Docker's own packages install.
var HostDocker = Docker{Spec: CDISpec, Socket: "/run/docker.sock", Pidfile: "/run/docker.pid"}

// Runs reports whether dockerd runs, and is to run Lanyard's hooks.
func (d Docker) Runs() bool {
	_, err := os.Stat(d.Spec)
	return err == nil && d.running() && d.Socket != ""
}

// running reports whether dockerd runs. Connecting would start a dockerd that systemd starts by its
// socket.
func (d Docker) running() bool {
	_, err := os.Stat(d.Pidfile)
	return err == nil
}

// Started calls f with each running container, and then with each that starts, until ctx ends or
// dockerd closes the connection.
func (d Docker) Started(ctx context.Context, f func(Container)) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.Socket)
		},
	}}
	defer client.CloseIdleConnections()
	// The stream of events is opened first: a container that starts now is in one of both.
	events, err := get(ctx, client, `/events?filters=`+url.QueryEscape(`{"type":["container"],"event":["start"]}`))
	if err != nil {
		return err
	}
	defer events.Body.Close()
	var running []struct {
		ID string `json:"Id"`
	}
	if err := getJSON(ctx, client, "/containers/json", &running); err != nil {
		return err
	}
	for _, one := range running {
		if err := inspect(ctx, client, one.ID, f); err != nil {
			return err
		}
	}
	for stream := json.NewDecoder(events.Body); ; {
		var event struct{ Actor struct{ ID string } }
		if err := stream.Decode(&event); err != nil {
			return err
		}
		if err := inspect(ctx, client, event.Actor.ID, f); err != nil {
			return err
		}
	}
}

// inspect calls f with a container, unless it is gone or has ended.
func inspect(ctx context.Context, client *http.Client, id string, f func(Container)) error {
	var one inspected
	err := getJSON(ctx, client, "/containers/"+url.PathEscape(id)+"/json", &one)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && one.State.Pid != 0 {
		f(one.container())
	}
	return err
}

func getJSON(ctx context.Context, client *http.Client, path string, to any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := get(ctx, client, path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(to)
}

// get asks the API. It returns fs.ErrNotExist for a container that does not exist.
func get(ctx context.Context, client *http.Client, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return nil, err
	}
	r, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if r.StatusCode != http.StatusOK {
		r.Body.Close()
		if r.StatusCode == http.StatusNotFound {
			return nil, fs.ErrNotExist
		}
		return nil, fmt.Errorf("dockerd: %s: %s", path, r.Status)
	}
	return r, nil
}
