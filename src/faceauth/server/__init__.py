"""The service `faceauth serve`: verdicts over HTTP, for a team or for a page in a browser. Needs the extra `server`.

One process speaks HTTP and never decodes anything; worker processes (`faceauth.workers`) decode and judge.
"""
