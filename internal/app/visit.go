package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/z4j-go/z4j/internal/backup"
	"github.com/z4j-go/z4j/internal/store"
)

const (
	visitProjects = 20      // projects whose pages are read; every route is read in each
	visitBody     = 4 << 20 // bytes that are read of one answer: an export has no end for a visitor
	visitTimeout  = time.Minute
	visitPage     = 200 // projects and agents on a page
)

// visitor uses the drill's brain as a browser does.
type visitor struct {
	base     string
	http     *http.Client
	projects []string // slugs
}

// visit does what people would do with a restored brain.
func (d *drill) visit(ctx context.Context) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	v := &visitor{base: d.brain.URL(), http: &http.Client{Jar: jar, Transport: transport, Timeout: visitTimeout}}
	for _, step := range []struct {
		name string
		do   func(context.Context, *visitor) (string, error)
	}{
		{backup.StepLogin, d.login},
		{backup.StepHealth, d.health},
		{backup.StepTasks, d.tasks},
		{backup.StepAgents, d.agents},
		{backup.StepRead, d.read},
		{backup.StepWrite, d.write},
	} {
		if err := d.do(ctx, step.name, func(ctx context.Context) (string, error) { return step.do(ctx, v) }); err != nil {
			return err
		}
	}
	return nil
}

// login makes an administrator in the scratch, and logs in.
func (d *drill) login(ctx context.Context, v *visitor) (string, error) {
	email, password := "drill-"+strings.ToLower(rand.Text())+"@drill.invalid", "Drill-9-"+rand.Text()+"-a"
	hash, err := Passwords(d.brain.Config).New(ctx, password)
	if err != nil {
		return "", err
	}
	if _, err := d.brain.Store.CreateUser(ctx, store.NewUser{Email: email, PasswordHash: hash, IsAdmin: true}, d.By); err != nil {
		return "", err
	}
	err = v.call(ctx, http.MethodPost, "/api/v1/auth/login", map[string]any{"email": email, "password": password}, nil)
	return "as an administrator that exists in the scratch only", err
}

func (d *drill) health(ctx context.Context, v *visitor) (string, error) {
	var ready struct{ Status, Audit string }
	if err := v.call(ctx, http.MethodGet, "/api/v1/health/ready", nil, &ready); err != nil {
		return "", err
	}
	if ready.Status != "ready" || ready.Audit != "ok" {
		return "", fmt.Errorf("the brain is %s, and its audit log %s", ready.Status, ready.Audit)
	}
	return "ready", nil
}

func (d *drill) rows(table string) int64 {
	for _, t := range d.restore.Plan.Archive.Manifest.Tables {
		if t.Name == table {
			return t.Rows
		}
	}
	return 0
}

// tasks reads the first page of the tasks of each project.
func (d *drill) tasks(ctx context.Context, v *visitor) (string, error) {
	err := v.pages(ctx, "/api/v1/projects", func(item json.RawMessage) error {
		var p struct{ Slug string }
		err := json.Unmarshal(item, &p)
		v.projects = append(v.projects, p.Slug)
		return err
	})
	if err != nil {
		return "", err
	}
	if want := d.rows("projects"); int64(len(v.projects)) != want {
		return "", fmt.Errorf("the brain shows %d projects, and the manifest says %d", len(v.projects), want)
	}
	seen := 0
	for _, slug := range v.projects {
		var list struct{ Items []json.RawMessage }
		if err := v.call(ctx, http.MethodGet, "/api/v1/projects/"+url.PathEscape(slug)+"/tasks", nil, &list); err != nil {
			return "", err
		}
		seen += len(list.Items)
	}
	want := d.rows("tasks")
	if int64(seen) > want || want > 0 && seen == 0 {
		return "", fmt.Errorf("the brain shows %d tasks on the first pages of its projects, and the manifest says %d in all", seen, want)
	}
	return fmt.Sprintf("%d on the first pages of %d projects, of %d", seen, len(v.projects), want), nil
}

// agents counts the agents. Revoked ones are in the database and in no list.
func (d *drill) agents(ctx context.Context, v *visitor) (string, error) {
	all, live, err := d.brain.Store.CountAgents(ctx)
	if err != nil {
		return "", err
	}
	if want := d.rows("agents"); all != want {
		return "", fmt.Errorf("the database has %d agents, and the manifest says %d", all, want)
	}
	seen := int64(0)
	for _, slug := range v.projects {
		if err := v.pages(ctx, "/api/v1/projects/"+url.PathEscape(slug)+"/agents", func(json.RawMessage) error { seen++; return nil }); err != nil {
			return "", err
		}
	}
	if seen != live {
		return "", fmt.Errorf("the brain shows %d agents, and %d are not revoked", seen, live)
	}
	return fmt.Sprintf("%d, and %d revoked", live, all-live), nil
}

// operation is what the drill looks at of an operation of the API's own description.
type operation struct {
	Parameters []struct {
		Name     string `json:"name"`
		In       string `json:"in"`
		Required bool   `json:"required"`
	} `json:"parameters"`
}

// read reads a page of everything that the API's own description has and that needs no more than a project.
func (d *drill) read(ctx context.Context, v *visitor) (string, error) {
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := v.call(ctx, http.MethodGet, "/api/v1/openapi.json", nil, &doc); err != nil {
		return "", err
	}
	routes, pages := 0, 0
	for path, methods := range doc.Paths {
		var op operation
		if raw, has := methods["get"]; !has {
			continue
		} else if err := json.Unmarshal(raw, &op); err != nil {
			return "", fmt.Errorf("read the description of %s: %w", path, err)
		}
		if op.needsMore() {
			continue
		}
		routes++
		slugs := []string{""}
		if strings.Contains(path, "{slug}") {
			slugs = v.projects[:min(len(v.projects), visitProjects)]
		}
		for _, slug := range slugs {
			if err := v.call(ctx, http.MethodGet, strings.ReplaceAll(path, "{slug}", url.PathEscape(slug)), nil, nil); err != nil {
				return "", err
			}
			pages++
		}
	}
	if routes == 0 {
		return "", errors.New("the API describes nothing that can be read")
	}
	return fmt.Sprintf("%d pages of %d routes", pages, routes), nil
}

func (o *operation) needsMore() bool {
	for _, p := range o.Parameters {
		if p.Required && (p.In != "path" || p.Name != "slug") {
			return true
		}
	}
	return false
}

// write mints an agent.
func (d *drill) write(ctx context.Context, v *visitor) (string, error) {
	slug := "drill-" + strings.ToLower(rand.Text()[:8])
	if len(v.projects) > 0 {
		slug = v.projects[0]
	} else if err := v.call(ctx, http.MethodPost, "/api/v1/projects", map[string]any{"slug": slug, "name": "Drill"}, nil); err != nil {
		return "", err
	}
	err := v.call(ctx, http.MethodPost, "/api/v1/projects/"+url.PathEscape(slug)+"/agents", map[string]any{"name": "drill " + rand.Text()}, nil)
	return "minted an agent", err
}

// pages gives every item of a list.
func (v *visitor) pages(ctx context.Context, path string, item func(json.RawMessage) error) error {
	query := url.Values{"limit": {strconv.Itoa(visitPage)}}
	for {
		var list []json.RawMessage
		header, err := v.ask(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &list)
		if err != nil {
			return err
		}
		for _, one := range list {
			if err := item(one); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		}
		next := header.Get("X-Next-Cursor")
		if next == "" {
			return nil
		}
		query.Set("cursor", next)
	}
}

// call is ask for who needs no header.
func (v *visitor) call(ctx context.Context, method, path string, body, into any) error {
	_, err := v.ask(ctx, method, path, body, into)
	return err
}

// ask makes one request, which has to succeed, and reads the answer into into, unless that is nil.
func (v *visitor) ask(ctx context.Context, method, path string, body, into any) (header http.Header, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", method, path, err)
		}
	}()
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	q, err := http.NewRequestWithContext(ctx, method, v.base+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	for _, c := range v.http.Jar.Cookies(q.URL) {
		if strings.HasSuffix(c.Name, "z4j_csrf") {
			q.Header.Set("X-CSRF-Token", c.Value)
		}
	}
	res, err := v.http.Do(q)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, visitBody))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return nil, err
	}
	switch {
	case res.StatusCode >= http.StatusMultipleChoices:
		err = fmt.Errorf("answered with status %d: %.300s", res.StatusCode, answer)
	case into != nil:
		err = json.Unmarshal(answer, into)
	case len(answer) < visitBody && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") && !json.Valid(answer):
		err = errors.New("the answer is no JSON")
	}
	return res.Header, err
}
