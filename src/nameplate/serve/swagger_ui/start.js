"use strict";

// The page lies at /docs, so that this is the service's own document, also behind a proxy that adds a path before it.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null, // asks nobody else
  supportedSubmitMethods: ["get", "post", "delete"],
});
