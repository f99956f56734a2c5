/** A request that was refused or did not arrive. `kind` is a problem's kind, or network, offline, unexpected. */
export class Refusal extends Error {
  constructor(kind, { status = null, code = null, detail = "", retryAfter = null, results = null } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, status, code, detail, retryAfter, results });
  }
}
