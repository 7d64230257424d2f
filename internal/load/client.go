package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Account is who asks the brain's API: an e-mail address with its password, or an API key.
type Account struct {
	Email, Password, APIKey string
}

func (a Account) none() bool { return a.APIKey == "" && a.Email == "" }

// Credential is what an agent connects with.
type Credential struct {
	Project string `json:"project"` // slug
	Token   string `json:"token"`
	Secret  string `json:"hmac_secret"` // as the brain shows it when an agent is minted
	AgentID string `json:"agent_id,omitempty"`
}

// client asks the API. After login it may be used by many goroutines.
type client struct {
	base    string
	account Account
	http    *http.Client
	cookies []*http.Cookie
	csrf    string
}

const (
	requestTimeout = 30 * time.Second
	maxAnswer      = 8 << 20 // bytes; a page of tasks has a tenth of that
)

func newClient(base string, a Account) (*client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the brain's URL %q is no http:// or https:// URL", base)
	}
	return &client{base: strings.TrimSuffix(base, "/"), account: a, http: &http.Client{Timeout: requestTimeout, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 16,
	}}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// refusal is an answer that says no.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.message) }

func statusOf(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status
	}
	return 0
}

// login starts a session; an API key needs none.
func (c *client) login(ctx context.Context) error {
	if c.account.APIKey != "" {
		return nil
	}
	cookies, err := c.send(ctx, http.MethodPost, "/api/v1/auth/login", map[string]any{"email": c.account.Email, "password": c.account.Password}, nil)
	if err != nil {
		return fmt.Errorf("log in at %s as %s: %w", c.base, c.account.Email, err)
	}
	// They go to this one brain only, so what a browser would keep from plain HTTP need not be kept from it.
	c.cookies = cookies
	for _, k := range c.cookies {
		if strings.HasSuffix(k.Name, "z4j_csrf") {
			c.csrf = k.Value
		}
	}
	return nil
}

// send asks and reads the answer into into, unless that is nil. It returns the cookies that come with it.
func (c *client) send(ctx context.Context, method, path string, body, into any) (cookies []*http.Cookie, err error) {
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.account.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+c.account.APIKey)
	}
	for _, k := range c.cookies {
		req.AddCookie(&http.Cookie{Name: k.Name, Value: k.Value}) //nolint:gosec // a request's cookie has no other attributes
	}
	if c.csrf != "" {
		req.Header.Set("X-CSRF-Token", c.csrf)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		var said struct{ Message string }
		if json.Unmarshal(answer, &said) != nil || said.Message == "" {
			said.Message = http.StatusText(res.StatusCode)
		}
		return nil, &refusal{res.StatusCode, said.Message}
	}
	if into == nil {
		return res.Cookies(), nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return res.Cookies(), nil
}

// project makes a project unless it is there.
func (c *client) project(ctx context.Context, slug string) error {
	_, err := c.send(ctx, http.MethodGet, "/api/v1/projects/"+slug, nil, nil)
	if statusOf(err) == http.StatusNotFound {
		_, err = c.send(ctx, http.MethodPost, "/api/v1/projects", map[string]any{"slug": slug, "name": "Load " + slug}, nil)
	}
	if err != nil && statusOf(err) != http.StatusConflict { // somebody else made it meanwhile
		return fmt.Errorf("make project %s: %w", slug, err)
	}
	return nil
}

func (c *client) mint(ctx context.Context, slug, name string) (Credential, error) {
	var minted struct {
		Agent  struct{ ID string }
		Token  string
		Secret string `json:"hmac_secret"`
	}
	if _, err := c.send(ctx, http.MethodPost, "/api/v1/projects/"+slug+"/agents", map[string]any{"name": name}, &minted); err != nil {
		return Credential{}, fmt.Errorf("mint agent %s in project %s: %w", name, slug, err)
	}
	return Credential{Project: slug, Token: minted.Token, Secret: minted.Secret, AgentID: minted.Agent.ID}, nil
}

func (c *client) revoke(ctx context.Context, a Credential) error {
	_, err := c.send(ctx, http.MethodDelete, "/api/v1/projects/"+a.Project+"/agents/"+a.AgentID, nil, nil)
	if err != nil && statusOf(err) != http.StatusNotFound {
		return fmt.Errorf("revoke agent %s of project %s: %w", a.AgentID, a.Project, err)
	}
	return nil
}

// shows reports whether the list of tasks has the task.
func (c *client) shows(ctx context.Context, slug, taskID string) (bool, error) {
	var page struct{ Items []struct{} }
	_, err := c.send(ctx, http.MethodGet, "/api/v1/projects/"+slug+"/tasks?limit=1&search="+taskID, nil, &page)
	return len(page.Items) > 0, err
}
