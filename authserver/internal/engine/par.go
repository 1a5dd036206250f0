package engine

import "net/http"

// PAR is the endpoint for pushed authorization requests (RFC 9126), for POST.
func (e *Engine) PAR(w http.ResponseWriter, r *http.Request) {
	c := e.newCall(r)
	rec, err := e.push(w, c)
	if err != nil {
		e.refuse(w, c, err)
		return
	}
	answer(w, rec.Status, "application/json", rec.Body.Bytes())
}

func (e *Engine) push(w http.ResponseWriter, c *call) (*recorded, error) {
	if err := c.readForm(w); err != nil {
		return nil, err
	}
	if err := e.authenticate(c, e.cfg.base()+e.cfg.Paths.PAR); err != nil { // section 2.1, step 1
		return nil, err
	}
	if err := e.pushes.Allow(c.writer()); err != nil { // section 2.3
		return nil, tooMany(err)
	}
	if c.form.Has("request_uri") { // step 2
		return nil, invalidRequest("request_uri cannot be pushed")
	}
	if err := e.pushKey(w, c); err != nil {
		return nil, err
	}
	if err := e.check(c, nil, false); err != nil { // step 3
		return nil, err
	}
	return e.answered(c, http.MethodPost, "/par", c.pick(authorizationParams...))
}
