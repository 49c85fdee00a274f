BEGIN TRANSACTION;
CREATE TABLE cases (
	tenant VARCHAR(255) NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	idempotency_key VARCHAR(255), 
	body_sha256 VARCHAR(64) NOT NULL, 
	source_kind VARCHAR(16) NOT NULL, 
	source_ref TEXT NOT NULL, 
	media JSON NOT NULL, 
	labels JSON NOT NULL, 
	callback TEXT NOT NULL, 
	release VARCHAR(64) NOT NULL, 
	policy VARCHAR(64) NOT NULL, 
	created_at BIGINT NOT NULL, 
	due_at BIGINT NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	revision INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	failure JSON, 
	sha256 VARCHAR(64) NOT NULL, 
	timings_ms JSON NOT NULL, 
	PRIMARY KEY (tenant, id), 
	UNIQUE (tenant, idempotency_key)
);
INSERT INTO "cases" VALUES('default','01a21e38-71a8-7162-b56a-474d91e0e4b7','first','4dff6a740badffd398b706c35320a350a6e571fed14b4114f8e1d01c43666109','bytes','default/pictures/9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879','{"kind": "image", "parent": ""}','{"uploader": "Zo\u00eb"}','','eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e','9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1',1795803345320577,1795803405412982,'decided','decided',5,0,'null','9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879','{"ingest": 4.62, "total": 83.4, "align": 69.98, "classify": 4.48, "localize": 3.06, "decide": 1.26}');
INSERT INTO "cases" VALUES('default','01a21e38-7206-7cd8-b43c-7aa16c4059cd','second','048e6ba4e1e5efac023be9ac22938ab72a4d5ca7cb531f491c2701dff4f2f9ef','bytes','default/pictures/9ed97c950c330a5b556b00fe9d46390594f0a34437886edd034c323444fbd7d8','{"kind": "image", "parent": ""}','{"uploader": "Zo\u00eb"}','','eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e','9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1',1795803345414691,1795803405414691,'accepted','failed',1,1,'{"code": "bad_image", "detail": "not an image this plugin reads (JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF)"}','','{"ingest": 0.21, "total": 0.21}');
INSERT INTO "cases" VALUES('default','01a21e38-7209-74ea-8d43-127c6337022f',NULL,'4dff6a740badffd398b706c35320a350a6e571fed14b4114f8e1d01c43666109','bytes','default/pictures/9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879','{"kind": "image", "parent": ""}','{"uploader": "Zo\u00eb"}','','eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e','9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1',1795803345417395,1795803405419411,'decided','decided',1,0,'null','9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879','{"ingest": 0.63, "total": 0.63}');
INSERT INTO "cases" VALUES('default','01a21e38-7210-735f-a045-e601529e45e4','open','73c3c7d855d59ad99f53f3fa056b2d5d6b01fe34d701d2447eb3b4e46ddb0075','bytes','default/pictures/2fd1acef0d1c36add3f22d0f782b6e862fecc01ea896aee07847a05cdf451a6e','{"kind": "image", "parent": ""}','{}','','eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e','9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1',1795803345424014,1795803405424014,'accepted','open',0,0,'null','','{}');
CREATE TABLE decisions (
	number INTEGER NOT NULL, 
	tenant VARCHAR(255) NOT NULL, 
	case_id VARCHAR(36) NOT NULL, 
	actor TEXT NOT NULL, 
	action VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	truth TEXT NOT NULL, 
	note TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "decisions" VALUES(1,'default','01a21e38-71a8-7162-b56a-474d91e0e4b7','policy','review','policy','','',1795803345412978);
INSERT INTO "decisions" VALUES(2,'default','01a21e38-7209-74ea-8d43-127c6337022f','policy','review','policy','','',1795803345419408);
CREATE TABLE findings (
	tenant VARCHAR(255) NOT NULL, 
	case_id VARCHAR(36) NOT NULL, 
	part VARCHAR(16) NOT NULL, 
	body JSON NOT NULL, 
	PRIMARY KEY (tenant, case_id, part)
);
INSERT INTO "findings" VALUES('default','01a21e38-71a8-7162-b56a-474d91e0e4b7','faces','[{"box": [112.0, 96.0, 368.0, 352.0], "landmarks": [[193.92, 188.16], [286.08, 188.16], [240.0, 236.8], [204.16, 285.44], [275.84, 285.44]], "confidence": 0.9399}]');
INSERT INTO "findings" VALUES('default','01a21e38-71a8-7162-b56a-474d91e0e4b7','classified','[{"synthetic": 0.9149452534638854, "generator": {"family_a": 0.9914, "family_b": 0.0086}, "defence": null, "doubt": null}]');
INSERT INTO "findings" VALUES('default','01a21e38-71a8-7162-b56a-474d91e0e4b7','localized','[{"manipulated": 0.0009668171405792235, "regions": []}]');
CREATE TABLE outbox (
	number INTEGER NOT NULL, 
	id VARCHAR(36) NOT NULL, 
	tenant VARCHAR(255) NOT NULL, 
	case_id VARCHAR(36) NOT NULL, 
	kind VARCHAR(64) NOT NULL, 
	body TEXT NOT NULL, 
	at BIGINT NOT NULL, 
	sent INTEGER NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "outbox" VALUES(1,'01a21e38-7204-74b7-9b63-31bc58da240e','default','01a21e38-71a8-7162-b56a-474d91e0e4b7','verdict.decided','{"schema": "unmask.verdict/1", "id": "01a21e38-71a8-7162-b56a-474d91e0e4b7", "sha256": "9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879", "width": 512, "height": 480, "label": "synthetic", "score": 0.915, "doubt": null, "action": "review", "faces": [{"box": [112.0, 96.0, 368.0, 352.0], "landmarks": [[193.92, 188.16], [286.08, 188.16], [240.0, 236.8], [204.16, 285.44], [275.84, 285.44]], "label": "synthetic", "score": 0.915, "doubt": null, "synthetic": 0.9149, "manipulated": 0.001, "generator": {"family_a": 0.9914, "family_b": 0.0086}, "defence": null, "regions": []}], "provenance": {"claims": []}, "release": {"name": "tiny", "sha256": "eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e"}, "models": [{"name": "face_detector", "version": 1, "sha256": "00a9e85e86ef76dba6789e81ec870ec1c94d216bf4ccc567bd16ba516d958d4d"}, {"name": "detector", "version": 1, "sha256": "c45151f4bc497609d55fb4c064a96237ae98bd8c2782acff23397b11c2769e0c"}, {"name": "localizer", "version": 1, "sha256": "6f259a001f001f463bbe5b2d7ebf612663d2fd204daf19790369af857129baba"}], "policy": {"name": "default", "sha256": "9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1"}, "reasons": [{"code": "face_synthetic", "text": "this face looks wholly generated (91 %), most likely by family_a (over 99 %)", "face": 0}, {"code": "policy_rule", "text": "rule 1 of policy ''default'' says review"}], "runtime": {"unmask": "0.1.0", "onnxruntime": "1.31.1", "pillow": "13.0.0", "opencv": "5.0.0.93"}, "timings_ms": {"ingest": 4.62, "total": 82.14, "align": 69.98, "classify": 4.48, "localize": 3.06}}',1795803345412978,0);
INSERT INTO "outbox" VALUES(2,'01a21e38-7208-7d6e-8a76-2a65c989330b','default','01a21e38-7206-7cd8-b43c-7aa16c4059cd','case.failed','{"id": "01a21e38-7206-7cd8-b43c-7aa16c4059cd", "error": "bad_image", "detail": "not an image this plugin reads (JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF)"}',1795803345416963,0);
INSERT INTO "outbox" VALUES(3,'01a21e38-720b-7f71-ac5b-f912336f2888','default','01a21e38-7209-74ea-8d43-127c6337022f','verdict.decided','{"schema": "unmask.verdict/1", "id": "01a21e38-7209-74ea-8d43-127c6337022f", "sha256": "9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879", "width": 512, "height": 480, "label": "synthetic", "score": 0.915, "doubt": null, "action": "review", "faces": [{"box": [112.0, 96.0, 368.0, 352.0], "landmarks": [[193.92, 188.16], [286.08, 188.16], [240.0, 236.8], [204.16, 285.44], [275.84, 285.44]], "label": "synthetic", "score": 0.915, "doubt": null, "synthetic": 0.9149, "manipulated": 0.001, "generator": {"family_a": 0.9914, "family_b": 0.0086}, "defence": null, "regions": []}], "provenance": {"claims": []}, "release": {"name": "tiny", "sha256": "eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e"}, "models": [{"name": "face_detector", "version": 1, "sha256": "00a9e85e86ef76dba6789e81ec870ec1c94d216bf4ccc567bd16ba516d958d4d"}, {"name": "detector", "version": 1, "sha256": "c45151f4bc497609d55fb4c064a96237ae98bd8c2782acff23397b11c2769e0c"}, {"name": "localizer", "version": 1, "sha256": "6f259a001f001f463bbe5b2d7ebf612663d2fd204daf19790369af857129baba"}], "policy": {"name": "default", "sha256": "9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1"}, "reasons": [{"code": "face_synthetic", "text": "this face looks wholly generated (91 %), most likely by family_a (over 99 %)", "face": 0}, {"code": "policy_rule", "text": "rule 1 of policy ''default'' says review"}], "runtime": {"unmask": "0.1.0", "onnxruntime": "1.31.1", "pillow": "13.0.0", "opencv": "5.0.0.93"}, "timings_ms": {}}',1795803345419408,0);
CREATE TABLE pictures (
	tenant VARCHAR(255) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	blob_key TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	format VARCHAR(16) NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	claims JSON NOT NULL, 
	PRIMARY KEY (tenant, sha256)
);
INSERT INTO "pictures" VALUES('default','9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879','default/pictures/9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879',4889,'PNG',512,480,'[]');
CREATE TABLE unmask_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "unmask_schema" VALUES(1);
CREATE TABLE verdicts (
	number INTEGER NOT NULL, 
	tenant VARCHAR(255) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	release VARCHAR(64) NOT NULL, 
	policy VARCHAR(64) NOT NULL, 
	body JSON NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (tenant, sha256, release, policy)
);
INSERT INTO "verdicts" VALUES(1,'default','9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879','eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e','9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1','{"schema": "unmask.verdict/1", "id": "01a21e38-71a8-7162-b56a-474d91e0e4b7", "sha256": "9d0881f7ce683486c15e1c5a032cc313310d7636db9d5fc702fe7fa325ea4879", "width": 512, "height": 480, "label": "synthetic", "score": 0.915, "doubt": null, "action": "review", "faces": [{"box": [112.0, 96.0, 368.0, 352.0], "landmarks": [[193.92, 188.16], [286.08, 188.16], [240.0, 236.8], [204.16, 285.44], [275.84, 285.44]], "label": "synthetic", "score": 0.915, "doubt": null, "synthetic": 0.9149, "manipulated": 0.001, "generator": {"family_a": 0.9914, "family_b": 0.0086}, "defence": null, "regions": []}], "provenance": {"claims": []}, "release": {"name": "tiny", "sha256": "eaf26f580ddadc47d450e5f430785786c6c92052d4fc6c89cf28440bd6f9c06e"}, "models": [{"name": "face_detector", "version": 1, "sha256": "00a9e85e86ef76dba6789e81ec870ec1c94d216bf4ccc567bd16ba516d958d4d"}, {"name": "detector", "version": 1, "sha256": "c45151f4bc497609d55fb4c064a96237ae98bd8c2782acff23397b11c2769e0c"}, {"name": "localizer", "version": 1, "sha256": "6f259a001f001f463bbe5b2d7ebf612663d2fd204daf19790369af857129baba"}], "policy": {"name": "default", "sha256": "9c57a45d849d25dd91d864074b987da51e96101acf468af6064185da6c0d9fb1"}, "reasons": [{"code": "face_synthetic", "text": "this face looks wholly generated (91 %), most likely by family_a (over 99 %)", "face": 0}, {"code": "policy_rule", "text": "rule 1 of policy ''default'' says review"}], "runtime": {"unmask": "0.1.0", "onnxruntime": "1.31.1", "pillow": "13.0.0", "opencv": "5.0.0.93"}, "timings_ms": {"ingest": 4.62, "total": 82.14, "align": 69.98, "classify": 4.48, "localize": 3.06}}');
CREATE INDEX cases_due ON cases (state, due_at);
CREATE INDEX decisions_case ON decisions (tenant, case_id);
CREATE INDEX outbox_unsent ON outbox (sent, number);
COMMIT;
