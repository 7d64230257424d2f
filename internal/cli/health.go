package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// healthTimeout is shorter than the five seconds of the image's health check.
const healthTimeout = 4 * time.Second

type healthCmd struct {
	URL string `help:"Base URL of the brain, instead of where the settings say that it listens." placeholder:"URL"`
}

// Help is shown by `health --help`.
func (healthCmd) Help() string {
	return `Exit codes: 0 the brain is ready, 1 it is not or does not answer, 2 wrong arguments or settings.`
}

// Run asks the brain.
func (h *healthCmd) Run(c *call) error {
	base := strings.TrimRight(h.URL, "/")
	if base == "" {
		cfg, err := c.load(true)
		if err != nil {
			return err
		}
		if cfg.Network.BindPort == 0 {
			return exit(exitUsage, errors.New("the brain listens on a port that it chose itself: say --url"))
		}
		base = "http://" + net.JoinHostPort(reachable(cfg.Network.BindHost), strconv.Itoa(cfg.Network.BindPort))
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/health/ready", nil)
	if err != nil {
		return exit(exitUsage, fmt.Errorf("read --url: %w", err))
	}
	client := &http.Client{Transport: &http.Transport{Proxy: nil}} // the brain is asked, not a proxy
	res, err := client.Do(req)
	if err != nil {
		return exit(exitFailed, fmt.Errorf("no brain answers: %w", err))
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return exit(exitFailed, fmt.Errorf("read the answer of the brain: %w", err))
	}
	if res.StatusCode != http.StatusOK {
		return exit(exitFailed, fmt.Errorf("not ready: status %d, %s", res.StatusCode, strings.TrimSpace(string(body))))
	}
	_, err = fmt.Fprintln(c.stdout, "ready")
	return err
}

// reachable is an address at which a brain that is bound to host answers this machine.
func reachable(host string) string {
	a, err := netip.ParseAddr(host)
	switch {
	case host == "" || err == nil && a.IsUnspecified() && a.Is4():
		return "127.0.0.1"
	case err == nil && a.IsUnspecified():
		return "::1"
	}
	return host
}
