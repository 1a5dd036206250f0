package clients_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/valetkey/valetkey/authserver/internal/clients"
	"github.com/valetkey/valetkey/authserver/store"
	"github.com/valetkey/valetkey/internal/jose"
)

// web is an application that can be registered.
func web() clients.Client {
	return clients.Client{
		Name: "Notes", RedirectURIs: []string{"https://notes.example.com/cb"},
		GrantTypes: []string{"authorization_code"}, Scopes: []string{"notes.read"},
	}
}

func keySet(t *testing.T, private bool) string {
	k, err := jose.GenerateKey("ES256", "")
	require.NoError(t, err)
	if private {
		return `{"keys":[` + string(k.PrivateJWK()) + `]}`
	}
	return `{"keys":[` + string(k.PublicJWK()) + `]}`
}

func TestValidate(t *testing.T) {
	uris := make([]string, 21)
	for i := range uris {
		uris[i] = "https://notes.example.com/cb"
	}
	for name, c := range map[string]struct {
		change func(*clients.Client)
		code   string
		member string
	}{
		"AS-DCR-05 the code grant without a redirect URI":           {func(c *clients.Client) { c.RedirectURIs = nil }, "invalid_redirect_uri", "redirect_uris"},
		"AS-DCR-05 implicit without a redirect URI":                 {func(c *clients.Client) { c.GrantTypes, c.RedirectURIs = []string{"implicit"}, nil }, "invalid_redirect_uri", "redirect_uris"},
		"AS-DCR-06 a redirect URI that runs a script":               {func(c *clients.Client) { c.RedirectURIs = []string{"javascript:alert(1)"} }, "invalid_redirect_uri", "redirect_uris"},
		"a private-use redirect URI of a client that is not native": {func(c *clients.Client) { c.RedirectURIs = []string{"com.example.app:/cb"} }, "invalid_redirect_uri", "redirect_uris"},
		"too many redirect URIs":                                    {func(c *clients.Client) { c.RedirectURIs = uris }, "invalid_redirect_uri", "redirect_uris"},
		"a long name":                                               {func(c *clients.Client) { c.Name = strings.Repeat("n", 101) }, "invalid_client_metadata", "client_name"},
		"a name with a line break":                                  {func(c *clients.Client) { c.Name = "Notes\nby you" }, "invalid_client_metadata", "client_name"},
		"a name that is written backwards":                          {func(c *clients.Client) { c.Name = "Notes\u202e" }, "invalid_client_metadata", "client_name"},
		"a name that is not UTF-8":                                  {func(c *clients.Client) { c.Name = "Notes\xff" }, "invalid_client_metadata", "client_name"},
		"a website that runs a script":                              {func(c *clients.Client) { c.URI = "javascript:alert(1)" }, "invalid_client_metadata", "client_uri"},
		"a website without a host":                                  {func(c *clients.Client) { c.URI = "https:///" }, "invalid_client_metadata", "client_uri"},
		"an unknown grant":                                          {func(c *clients.Client) { c.GrantTypes = append(c.GrantTypes, "magic") }, "invalid_client_metadata", "grant_types"},
		"an unknown authentication method":                          {func(c *clients.Client) { c.AuthMethod = "magic" }, "invalid_client_metadata", "token_endpoint_auth_method"},
		"a public client with the client credentials":               {func(c *clients.Client) { c.GrantTypes = append(c.GrantTypes, "client_credentials") }, "invalid_client_metadata", "token_endpoint_auth_method"},
		"assertions with an HMAC":                                   {func(c *clients.Client) { c.AssertionAlg = "HS256" }, "invalid_client_metadata", "token_endpoint_auth_signing_alg"},
		"assertions that are not signed":                            {func(c *clients.Client) { c.AssertionAlg = "none" }, "invalid_client_metadata", "token_endpoint_auth_signing_alg"},
		"a scope with a quote":                                      {func(c *clients.Client) { c.Scopes = []string{`a"b`} }, "invalid_client_metadata", "scope"},
		"too many scopes":                                           {func(c *clients.Client) { c.Scopes = make([]string, 101) }, "invalid_client_metadata", "scope"},
		"a trusted client on loopback": {func(c *clients.Client) {
			c.Trusted, c.Native, c.RedirectURIs = true, true, append(c.RedirectURIs, "http://127.0.0.1/cb")
		}, "invalid_client_metadata", "trusted"},
		"a trusted client with a private-use scheme": {func(c *clients.Client) {
			c.Trusted, c.Native, c.RedirectURIs = true, true, []string{"com.example.app:/cb"}
		}, "invalid_client_metadata", "trusted"},
		"a trusted client that is sent its token on loopback, secret or not": {func(c *clients.Client) {
			c.Trusted, c.AuthMethod, c.GrantTypes, c.RedirectURIs = true, "client_secret_basic", []string{"implicit"}, []string{"http://localhost/cb"}
		}, "invalid_client_metadata", "trusted"},
		"a negative lifetime":                              {func(c *clients.Client) { c.Lifetime = -1 }, "invalid_client_metadata", "access_lifetime"},
		"a long software id":                               {func(c *clients.Client) { c.SoftwareID = strings.Repeat("n", 101) }, "invalid_client_metadata", "software_id"},
		"a long software version":                          {func(c *clients.Client) { c.SoftwareVersion = strings.Repeat("n", 101) }, "invalid_client_metadata", "software_version"},
		"a long software statement":                        {func(c *clients.Client) { c.SoftwareStatement = strings.Repeat("n", 1<<20) }, "invalid_client_metadata", "software_statement"},
		"AS-DCR-03 a key set and its URL":                  {func(c *clients.Client) { c.JWKS, c.JWKSURL = keySet(t, false), "https://notes.example.com/keys" }, "invalid_client_metadata", "jwks"},
		"a key set in clear text":                          {func(c *clients.Client) { c.JWKSURL = "http://notes.example.com/keys" }, "invalid_client_metadata", "jwks_uri"},
		"a key set with a private key":                     {func(c *clients.Client) { c.JWKS = keySet(t, true) }, "invalid_client_metadata", "jwks"},
		"a key set with a shared secret":                   {func(c *clients.Client) { c.JWKS = `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}` }, "invalid_client_metadata", "jwks"},
		"a key set without keys":                           {func(c *clients.Client) { c.JWKS = `{"keys":[]}` }, "invalid_client_metadata", "jwks"},
		"a long key set":                                   {func(c *clients.Client) { c.JWKS = strings.Repeat(" ", 1<<20) }, "invalid_client_metadata", "jwks"},
		"private_key_jwt without keys":                     {func(c *clients.Client) { c.AuthMethod = "private_key_jwt" }, "invalid_client_metadata", "jwks"},
		"a self-signed certificate that is not in the set": {func(c *clients.Client) { c.AuthMethod, c.JWKS = "self_signed_tls_client_auth", keySet(t, false) }, "invalid_client_metadata", "jwks"},
	} {
		t.Run(name, func(t *testing.T) {
			client := web()
			client.AuthMethod = "none"
			require.NoError(t, clients.Validate(&client))
			c.change(&client)
			err := clients.Validate(&client)
			invalid, ok := errors.AsType[*clients.Invalid](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, c.code, invalid.Code)
			assert.True(t, strings.HasPrefix(invalid.Description(), c.member+":"), invalid.Description())
		})
	}
	for name, change := range map[string]func(*clients.Client){
		"that is public and reached over https":             func(c *clients.Client) { c.AuthMethod = "none" },
		"that authenticates, on loopback":                   func(c *clients.Client) { c.RedirectURIs = []string{"http://127.0.0.1:8080/cb"} },
		"that is public and without redirect URIs (device)": func(c *clients.Client) { c.AuthMethod, c.RedirectURIs, c.GrantTypes = "none", nil, nil },
	} {
		t.Run("a trusted client "+name, func(t *testing.T) {
			c := web()
			c.Trusted, c.AuthMethod = true, "client_secret_basic"
			change(&c)
			assert.NoError(t, clients.Validate(&c))
		})
	}
	t.Run("every mistake is reported", func(t *testing.T) {
		err := clients.Validate(&clients.Client{AuthMethod: "magic", URI: "mailto:me", GrantTypes: []string{"magic"}})
		for _, member := range []string{"token_endpoint_auth_method", "client_uri", "grant_types"} {
			assert.ErrorContains(t, err, member)
		}
	})
	t.Run("a self-signed certificate in the set", func(t *testing.T) {
		c := web()
		c.AuthMethod = "self_signed_tls_client_auth"
		c.JWKS = strings.Replace(keySet(t, false), `"kty"`, `"x5c":["MIIB"],"kty"`, 1)
		assert.NoError(t, clients.Validate(&c))
		c.JWKS, c.JWKSURL = "", "https://notes.example.com/keys"
		assert.NoError(t, clients.Validate(&c))
	})
}

func TestCreate(t *testing.T) {
	ctx := t.Context()
	s := store.NewMemory(0)
	r := clients.NewRegistry(s, nil)

	t.Run("refused", func(t *testing.T) {
		c := web()
		c.AuthMethod = "none"
		_, _, err := r.Create(ctx, c, true)
		assert.ErrorContains(t, err, "token_endpoint_auth_method")
		c.AuthMethod = "client_secret_post"
		_, _, err = r.Create(ctx, c, false)
		assert.ErrorContains(t, err, "token_endpoint_auth_method")
		c.RedirectURIs = nil
		_, _, err = r.Create(ctx, c, true)
		assert.ErrorContains(t, err, "redirect_uris")
	})
	t.Run("a confidential client", func(t *testing.T) {
		c, secret, err := r.Create(ctx, web(), true)
		require.NoError(t, err)
		assert.Equal(t, "client_secret_basic", c.AuthMethod)
		assert.GreaterOrEqual(t, len(secret), 26, "of 5 bits a character")
		assert.GreaterOrEqual(t, len(c.ID), 26)
		assert.NotContains(t, c.ID, ":", "or it could be a user's subject")
		assert.WithinDuration(t, time.Now(), c.IssuedAt, time.Minute)

		got, err := r.Get(ctx, c.ID)
		require.NoError(t, err)
		assert.Equal(t, c, got)
		assert.True(t, got.HasSecret(secret))
		for _, wrong := range []string{"", secret[1:], secret + "A", strings.ToLower(secret), got.SecretDigest[0]} {
			assert.False(t, got.HasSecret(wrong))
		}
		rec, err := s.Get(ctx, "client", c.ID)
		require.NoError(t, err)
		assert.NotContains(t, string(rec.Value), secret)
	})
	t.Run("a public client", func(t *testing.T) {
		c, secret, err := r.Create(ctx, web(), false)
		require.NoError(t, err)
		assert.True(t, c.Public())
		assert.Empty(t, secret)
		assert.False(t, c.HasSecret(""))
	})
	t.Run("an id or a secret that the caller chose does not count", func(t *testing.T) {
		c := web()
		c.ID, c.SecretDigest = "mine", []string{store.Digest("mine")}
		made, _, err := r.Create(ctx, c, true)
		require.NoError(t, err)
		assert.NotEqual(t, "mine", made.ID)
		assert.False(t, made.HasSecret("mine"))
		made, _, err = r.Create(ctx, c, false)
		require.NoError(t, err)
		assert.Empty(t, made.SecretDigest)
	})
	t.Run("an owner has a hundred at most", func(t *testing.T) {
		c := web()
		c.Owner = "customer:1"
		for range 100 {
			_, _, err := r.Create(ctx, c, false)
			require.NoError(t, err)
		}
		_, _, err := r.Create(ctx, c, false)
		assert.ErrorAs(t, err, new(*clients.Invalid))
		c.Owner = "customer:2"
		_, _, err = r.Create(ctx, c, false)
		assert.NoError(t, err)
	})
}

func TestStatic(t *testing.T) {
	ctx := t.Context()
	s := store.NewMemory(0)
	r := clients.NewRegistry(s, []clients.Client{{ID: "shop", Name: "Shop", SecretDigest: []string{store.Digest("old"), store.Digest("new")}}, {ID: "bakery"}})
	c, err := r.Get(ctx, "shop")
	require.NoError(t, err)
	assert.True(t, c.Static)
	assert.True(t, c.HasSecret("old") && c.HasSecret("new"), "two may be valid while one replaces the other")
	assert.False(t, c.HasSecret("other"))

	c.Name = "Mine"
	again, err := r.Get(ctx, "shop")
	require.NoError(t, err)
	assert.Equal(t, "Shop", again.Name)
	assert.ErrorIs(t, r.Update(ctx, *c), clients.ErrStatic)
	assert.ErrorIs(t, r.Delete(ctx, "shop"), clients.ErrStatic)
	assert.NoError(t, r.Keep(ctx, c))

	_, err = s.Put(ctx, store.Record{Kind: "client", ID: "shop", Value: []byte(`{"client_id":"shop","client_name":"Impostor"}`)})
	require.NoError(t, err)
	again, err = r.Get(ctx, "shop")
	require.NoError(t, err)
	assert.Equal(t, "Shop", again.Name)

	made, _, err := r.Create(ctx, web(), false)
	require.NoError(t, err)
	var all []string
	for after := ""; ; {
		list, err := r.List(ctx, after, 2)
		require.NoError(t, err)
		if len(list) == 0 {
			break
		}
		assert.LessOrEqual(t, len(list), 2)
		for _, c := range list {
			all = append(all, c.ID+" "+c.Name)
			after = c.ID
		}
	}
	assert.Equal(t, []string{made.ID + " Notes", "bakery ", "shop Shop"}, all)
}

func TestGet(t *testing.T) {
	ctx := t.Context()
	s := store.NewMemory(0)
	r := clients.NewRegistry(s, nil)
	for _, id := range []string{"", "unknown", strings.Repeat("a", 600), "a\x00b", "naïve"} {
		_, err := r.Get(ctx, id)
		assert.ErrorIs(t, err, store.ErrNotFound)
	}
	_, err := s.Put(ctx, store.Record{Kind: "client", ID: "broken", Value: []byte("no JSON")})
	require.NoError(t, err)
	_, err = r.Get(ctx, "broken")
	assert.ErrorContains(t, err, "read client broken")
	_, err = r.List(ctx, "", 10)
	assert.Error(t, err)
	require.NoError(t, s.Close())
	_, err = r.Get(ctx, "unknown")
	assert.Error(t, err)
	assert.NotErrorIs(t, err, store.ErrNotFound, "an outage is not an answer")
}

func TestUpdate(t *testing.T) {
	ctx := t.Context()
	r := clients.NewRegistry(store.NewMemory(0), nil)
	web := web()
	web.Owner = "customer:1"
	made, secret, err := r.Create(ctx, web, true)
	require.NoError(t, err)

	t.Run("refused", func(t *testing.T) {
		assert.ErrorIs(t, r.Update(ctx, clients.Client{ID: made.ID}), store.ErrConflict, "it was not read")
		c := *made
		c.RedirectURIs = nil
		assert.ErrorAs(t, r.Update(ctx, c), new(*clients.Invalid))
		c = *made
		c.AuthMethod = "none"
		assert.ErrorContains(t, r.Update(ctx, c), "has a secret")
	})
	t.Run("of those who have read the same, one succeeds", func(t *testing.T) {
		for range 50 {
			c, err := r.Get(ctx, made.ID)
			require.NoError(t, err)
			var won, lost atomic.Int32
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					switch err := r.Update(ctx, *c); {
					case err == nil:
						won.Add(1)
					case errors.Is(err, store.ErrConflict):
						lost.Add(1)
					}
				})
			}
			all.Wait()
			require.Equal(t, []int32{1, 7}, []int32{won.Load(), lost.Load()})
		}
	})
	t.Run("the old secret is dead at once", func(t *testing.T) {
		fresh, err := r.RotateSecret(ctx, made.ID)
		require.NoError(t, err)
		c, err := r.Get(ctx, made.ID)
		require.NoError(t, err)
		assert.True(t, c.HasSecret(fresh))
		assert.False(t, c.HasSecret(secret))
	})
	t.Run("a client without a secret gets none", func(t *testing.T) {
		public, _, err := r.Create(ctx, web, false)
		require.NoError(t, err)
		_, err = r.RotateSecret(ctx, public.ID)
		assert.ErrorAs(t, err, new(*clients.Invalid))
		_, err = r.RotateSecret(ctx, "unknown")
		assert.ErrorIs(t, err, store.ErrNotFound)
	})
	t.Run("the owner finds them", func(t *testing.T) {
		mine, err := r.ByOwner(ctx, "customer:1")
		require.NoError(t, err)
		assert.Len(t, mine, 2)
		assert.NoError(t, r.Update(ctx, mine[0]), "and may change what was found")
		for _, other := range []string{"customer:2", ""} {
			list, err := r.ByOwner(ctx, other)
			require.NoError(t, err)
			assert.Empty(t, list)
		}
	})
	t.Run("a deleted client is gone, and does not come back", func(t *testing.T) {
		c, err := r.Get(ctx, made.ID)
		require.NoError(t, err)
		require.NoError(t, r.Delete(ctx, made.ID))
		require.NoError(t, r.Delete(ctx, made.ID))
		assert.ErrorIs(t, r.Update(ctx, *c), store.ErrConflict)
		_, err = r.Get(ctx, made.ID)
		assert.ErrorIs(t, err, store.ErrNotFound)
	})
}

func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		r := clients.NewRegistry(store.NewMemory(0), nil)
		c := web()
		c.Expires = time.Now().Add(time.Hour)
		unused, _, err := r.Create(ctx, c, false)
		require.NoError(t, err)
		used, _, err := r.Create(ctx, c, false)
		require.NoError(t, err)

		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { assert.NoError(t, r.Keep(ctx, used)) })
		}
		all.Wait()
		time.Sleep(2 * time.Hour)
		_, err = r.Get(ctx, unused.ID)
		assert.ErrorIs(t, err, store.ErrNotFound)
		assert.ErrorIs(t, r.Keep(ctx, unused), store.ErrNotFound)
		kept, err := r.Get(ctx, used.ID)
		require.NoError(t, err)
		assert.True(t, kept.Expires.IsZero())
	})
}

// What is stored can be read by any version that knows the names.
func TestStoredForm(t *testing.T) {
	s := store.NewMemory(0)
	r := clients.NewRegistry(s, nil)
	c, _, err := r.Create(t.Context(), web(), false)
	require.NoError(t, err)
	rec, err := s.Get(t.Context(), "client", c.ID)
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(rec.Value, &m))
	for _, name := range []string{"client_id", "issued_at", "client_name", "redirect_uris", "grant_types", "token_endpoint_auth_method", "scopes"} {
		assert.Contains(t, m, name)
	}
	assert.Len(t, m, 7)
}

func TestKeySetClient(t *testing.T) {
	_, err := clients.KeySetClient(nil).Get("http://127.0.0.1:1/keys")
	assert.ErrorContains(t, err, "not a public address")
}
